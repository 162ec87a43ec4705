//! A database beside the others, into which a dump is loaded: to see whether it can be, or to take the place of another.
//!
//! The dump is loaded by an account that may use this database and no other, whatever the dump says. Its client takes
//! no commands from it. What a killed run left is known by a table of ours, and goes before the next one.

use super::client::{ClientLogin, ClientPurpose};
use super::dump::DumpSection;
use super::scan::DumpScan;
use crate::archive::pack::{PIECE, unpack_stream};
use crate::base::error::Exit;
use crate::base::secret::Secret;
use crate::base::signals::{is_to_stop, stopped_error};
use crate::drivers::sql::copy::deferred_keys;
use crate::drivers::sql::{self, Database, Power, quote};
use crate::host::{Ends, Flow, Host};
use crate::probe::database::{DatabaseAddress, Login};
use anyhow::{Context, Result, anyhow};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::ChildStdin;
use std::sync::Mutex;

/// Says that a database is one of these, and whose.
const MARK: &str = "_camcops_provision_beside";
/// More do not make a server of this size faster.
const MOST_CLIENTS: usize = 4;
/// Each load says about this often how far it is.
const TOLD: u64 = 8;
/// What stands before the first table of a dump is some lines.
const LARGEST_HEAD: u64 = 1 << 20;
/// From this size on, on the disk, keys of a table are made after its rows.
const LARGE: u64 = 64 << 10;
/// No statement that makes a table is longer.
const LARGEST_CREATE: usize = 1 << 20;
/// So much is read at once to find its end.
const SMALL_PIECE: u64 = 1 << 16;
/// A name of a database has 64 letters at most, and these end with what it is for.
const LONGEST: usize = 48;

/// What a database beside the others is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScratchDatabase {
    /// To see whether a backup can be loaded.
    Verify,
    /// To take the place of the site's database.
    Restore,
    /// To hold what was in the site's database before.
    Replaced,
    /// To become a copy without what says who somebody is.
    Anonymise,
}

/// Its name: the settings allow no such name for the database of a site.
pub(crate) fn scratch_name(database: &str, purpose: ScratchDatabase) -> String {
    let short: String = database.chars().take(LONGEST).collect();
    let end = match purpose {
        ScratchDatabase::Verify => "verify",
        ScratchDatabase::Restore => "restore",
        ScratchDatabase::Replaced => "replaced",
        ScratchDatabase::Anonymise => "anonymise",
    };
    format!("{short}-{end}")
}

/// Refuses where the server gives no power to make a database.
pub(crate) fn need_power(known: &Database, instead: &str) -> Result<()> {
    if known.server.power == Power::Administrator {
        return Ok(());
    }
    Err(Exit::NoPermission.because(format!(
        "this needs a further database at {}, and {} may not make one: set database.admin_defaults_file to an option file of an administrator{instead}",
        known.server.endpoint.address, known.server.endpoint.user
    )))
}

/// Refuses where triggers are on the tables of a database: the server moves no table that has one.
pub(crate) async fn refuse_triggers(known: &Database) -> Result<()> {
    let mut triggers = sql::others_of(&known.server, &known.database).await?;
    triggers.retain(|what| what.starts_with(sql::TRIGGER));
    refuse_load(known, &triggers, "the server moves no table that has a trigger")
}

/// Refuses where a database that is to go has anything that no dump of ours has.
pub(crate) async fn refuse_others(known: &Database) -> Result<()> {
    let others = sql::others_of(&known.server, &known.database).await?;
    refuse_load(known, &others, "the dump would not have them")
}

fn refuse_load(known: &Database, others: &[String], why: &str) -> Result<()> {
    if others.is_empty() {
        return Ok(());
    }
    Err(Exit::CannotCreate.because(format!(
        "the database {} has what CamCOPS does not know ({}), and {why}; nothing was changed: write down what SHOW CREATE says of each, drop it, run this again, and make it anew",
        known.database,
        others.join(", ")
    )))
}

/// Makes one that is empty; only the account that is given with it, and the server's administrator, may use it.
pub(crate) async fn create_scratch(
    known: &Database,
    purpose: ScratchDatabase,
    charset: &str,
    collation: &str,
) -> Result<String> {
    let name = scratch_name(&known.database, purpose);
    drop_scratch(known, purpose).await?;
    let word = |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !word(charset) || !word(collation) {
        return Err(Exit::Unusable.because("its character set is none"));
    }
    let quoted = quote::quote_name(&name);
    for statement in [
        format!("CREATE DATABASE {quoted} CHARACTER SET {charset} COLLATE {collation}"),
        format!("CREATE TABLE {quoted}.{MARK} (instance VARCHAR(64) NOT NULL) ENGINE=InnoDB"),
        format!("INSERT INTO {quoted}.{MARK} VALUES ({})", quote::quote_text(&known.instance)),
    ] {
        known.server.change(&statement).await?;
    }
    Ok(name)
}

/// Refuses what the server has no room for, where that can be known.
pub(crate) async fn check_room(host: &Host, known: &Database, needed: u64) -> Result<()> {
    if !known.server.local {
        return Ok(());
    }
    let directory: Option<(String,)> = known.server.row("SELECT @@datadir").await?;
    match directory {
        Some((directory,)) if host.look_into(&directory)?.is_some() => {
            super::dump::check_room(host, directory.trim_end_matches('/'), needed, "to load a dump")
        }
        _ => Ok(()),
    }
}

/// Removes one, whoever left it; one of somebody else is refused.
pub(crate) async fn drop_scratch(known: &Database, purpose: ScratchDatabase) -> Result<bool> {
    let name = scratch_name(&known.database, purpose);
    let server = &known.server;
    let there: Option<(u8,)> = server
        .row(&format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}", quote::quote_text(&name)))
        .await?;
    if there.is_none() {
        return Ok(false);
    }
    let tables = sql::tables_of(server, &name).await?;
    if !tables.is_empty() && !tables.iter().any(|table| table == MARK) {
        return Err(Exit::CannotCreate
            .because(format!("the database {name} is not one of ours; rename or remove it, and run again")));
    }
    server.change(&format!("DROP DATABASE {}", quote::quote_name(&name))).await?;
    Ok(true)
}

/// Whether an earlier run put other tables in the place of the site's, and was cut before the old ones went.
pub(crate) async fn were_switched(known: &Database) -> Result<bool> {
    let old = count_tables(known, ScratchDatabase::Replaced).await?;
    let new = count_tables(known, ScratchDatabase::Restore).await?;
    match (old, new) {
        (0, _) => Ok(false),
        (_, 0) => Ok(true),
        _ => Err(Exit::Unusable.because(format!(
            "some tables of {} are in {}, and some of the new ones are still in {}: the server went away while it moved them; move them all one way by RENAME TABLE, and run again",
            known.database,
            scratch_name(&known.database, ScratchDatabase::Replaced),
            scratch_name(&known.database, ScratchDatabase::Restore)
        ))),
    }
}

async fn count_tables(known: &Database, purpose: ScratchDatabase) -> Result<usize> {
    let tables = sql::tables_of(&known.server, &scratch_name(&known.database, purpose)).await?;
    Ok(tables.iter().filter(|table| *table != MARK).count())
}

/// Removes all that runs before this one may have left, and says so.
pub(crate) async fn clear_up(known: &Database) -> Result<()> {
    if known.server.power != Power::Administrator {
        return Ok(());
    }
    // What was cut in the middle of it holds the only copy of some tables.
    were_switched(known).await?;
    for purpose in
        [ScratchDatabase::Verify, ScratchDatabase::Restore, ScratchDatabase::Replaced, ScratchDatabase::Anonymise]
    {
        if drop_scratch(known, purpose).await? {
            (known.tell)(&format!(
                "removed the database {}, which an earlier run left",
                scratch_name(&known.database, purpose)
            ));
        }
    }
    drop_account(known).await
}

fn load_account(known: &Database) -> String {
    // MySQL allows 32 letters.
    let short: String = known.instance.chars().take(16).collect();
    format!("camcops-load-{short}")
}

async fn drop_account(known: &Database) -> Result<()> {
    let client = known.client().await?;
    let account = quote::quote_account(&load_account(known), &client);
    known.server.change(&format!("DROP USER IF EXISTS {account}")).await
}

/// What is loaded.
#[derive(Debug)]
pub(crate) enum DumpSource<'a> {
    /// Our own, whose parts can be loaded side by side.
    Sections {
        file: &'a File,
        sections: &'a [DumpSection],
        /// Its size as text.
        text_bytes: u64,
    },
    /// Any other, from its beginning to its end.
    Stream {
        file: &'a File,
        /// Who decrypts it, if it is encrypted.
        decrypted: Option<Flow>,
    },
}

/// Loads a dump into a database that was made for it. Gives what was seen of one that came as a stream.
pub(crate) async fn load_dump(
    host: &Host,
    known: &Database,
    database: &str,
    source: DumpSource<'_>,
) -> Result<DumpScan> {
    let server = &known.server;
    let family = server.identity().await?.family;
    drop_account(known).await?;
    // Some servers want a letter that is none.
    let password = Secret::new(format!("{}-Aa1", Secret::generate()?.reveal()));
    let client = known.client().await?;
    let user = load_account(known);
    let account = quote::quote_account(&user, &client);
    server.change(&format!("CREATE USER {account} IDENTIFIED BY {}", quote::quote_text(password.reveal()))).await?;
    server
        .change(&format!(
            "GRANT {} ON {}.* TO {account}",
            // A view or a routine could do in the administrator's name what this account may not.
            sql::AccountPurpose::Application.privileges().join(", "),
            quote::quote_name(&quote::quote_pattern(database))
        ))
        .await?;
    let endpoint = DatabaseAddress {
        database: database.to_owned(),
        user,
        login: Login::Password(password),
        ..server.endpoint.clone()
    };
    let way = ClientLogin::new(host, &endpoint, family, &format!("load-{}", known.database))?;
    let program = way.program(ClientPurpose::Load)?;
    let start = || {
        way.client(program)
            .args([
                "--batch",
                // Otherwise a dump could have commands for the client.
                "--binary-mode",
                // Nor may it have files read that root can read.
                "--local-infile=0",
                "--default-character-set=utf8mb4",
                "--max-allowed-packet=1G",
                "--",
                database,
            ])
            .flow(Ends::Input)
    };
    let loaded = match source {
        DumpSource::Stream { file, decrypted } => stream_dump(host, start()?, file, decrypted, known.tell),
        DumpSource::Sections { file, sections, text_bytes } => {
            let clients = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, MOST_CLIENTS);
            let clients = (0..clients).map(|_| start()).collect::<Result<_>>()?;
            side_by_side(host, clients, file, sections, text_bytes, known.tell)
        }
    };
    drop(way);
    drop_account(known).await?;
    loaded.map_err(|why| explain_failure(known, why))
}

/// What a client says when it can't load a dump: the fault of the dump, unless the server says otherwise.
fn explain_failure(known: &Database, why: anyhow::Error) -> anyhow::Error {
    if is_to_stop() {
        return stopped_error();
    }
    if why.downcast_ref::<crate::base::error::Failure>().is_some() {
        return why;
    }
    let text = format!("{why:#}");
    let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
    let place = &known.server.endpoint.address;
    if says(&["ERROR 2002 ", "ERROR 2003 ", "ERROR 2006 ", "ERROR 2013 ", "ERROR 1053 "]) {
        return Exit::Unreachable.because(format!(
            "database {place}: the server went away while a dump was loaded ({text}); nothing was changed: mend it and run again"
        ));
    }
    if says(&["ERROR 1114 ", "ERROR 1030 ", "ERROR 3 ", "No space left"]) {
        return Exit::Io.because(format!(
            "database {place}: the server has no room to load the dump ({text}); nothing was changed: make room there and run again"
        ));
    }
    if says(&["ERROR 1044 ", "ERROR 1142 ", "ERROR 1227 "]) {
        return Exit::Unusable.because(format!(
            "the dump wants more than to fill one database ({text}); nothing was changed: make one of this database alone, without --databases and without views, triggers or routines"
        ));
    }
    Exit::Unusable.because(format!("the dump can't be loaded ({text}); nothing was changed"))
}

/// A signal ends a load with the statement at hand: all of it may take hours.
fn go_on() -> io::Result<()> {
    match is_to_stop() {
        true => Err(io::Error::other("stopped")),
        false => Ok(()),
    }
}

/// How far it is.
struct LoadProgress {
    tell: fn(&str),
    done: u64,
    all: u64,
    told: u64,
}

impl LoadProgress {
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let every = (self.all / TOLD).max(64 << 20);
        if self.done >= self.told + every {
            self.told = self.done;
            let line = match self.all {
                0 => format!("loaded {} MiB", self.done >> 20),
                all => format!("loaded {} of {} MiB", (self.done >> 20).min(all >> 20), all >> 20),
            };
            (self.tell)(&line);
        }
    }
}

fn stream_dump(
    host: &Host,
    mut client: Flow,
    file: &File,
    mut decrypted: Option<Flow>,
    tell: fn(&str),
) -> Result<DumpScan> {
    let mut progress = LoadProgress { tell, done: 0, all: 0, told: 0 };
    let mut scan = DumpScan::default();
    let mut input = client.input.take().context("the client reads nothing")?;
    let output = decrypted.as_mut().and_then(|flow| flow.output.take());
    let pump = || -> io::Result<()> {
        let mut text = match output {
            Some(output) => unpack_stream(output)?,
            None => unpack_stream(file)?,
        };
        let mut piece = vec![0; PIECE];
        loop {
            let read = text.read(&mut piece).map_err(DumpReadError::wrapped)?;
            if read == 0 {
                return Ok(());
            }
            go_on()?;
            scan.feed(&piece[..read]);
            input.write_all(&piece[..read])?;
            progress.add(read as u64);
        }
    };
    let pumped = pump();
    drop(input);
    if let Err(why) = pumped {
        let why = read_or_written(why, host, decrypted.take());
        return Err(match why {
            Some(read) => read,
            None => client.failed(host, anyhow!("the client stopped reading")),
        });
    }
    if let Some(flow) = decrypted {
        flow.end(host).map_err(|why| Exit::Unusable.because(format!("the backup can't be decrypted: {why:#}")))?;
    }
    client.end(host)?;
    Ok(scan)
}

/// A failure of the dump, and not of who should read it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct DumpReadError(io::Error);

impl DumpReadError {
    fn wrapped(why: io::Error) -> io::Error {
        io::Error::other(DumpReadError(why))
    }
}

fn read_or_written(why: io::Error, host: &Host, decrypted: Option<Flow>) -> Option<anyhow::Error> {
    if why.get_ref().is_none_or(|inner| !inner.is::<DumpReadError>()) {
        return None;
    }
    let told = decrypted.map_or_else(
        || why.to_string(),
        |flow| match flow.end(host) {
            Err(told) => told.to_string(),
            Ok(()) => why.to_string(),
        },
    );
    Some(
        Exit::Unusable.because(format!(
            "the dump can't be read to its end ({told}): it is damaged or was cut; nothing was changed"
        )),
    )
}

/// A part that waits for a client.
#[derive(Debug)]
struct DumpPart {
    from: u64,
    to: u64,
}

/// Reads a part of a file, without a position that others could move.
#[derive(Debug)]
struct Window<'a> {
    file: &'a File,
    part: DumpPart,
}

impl Read for Window<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.part.to - self.part.from).unwrap_or(usize::MAX);
        let most = piece.len().min(left);
        let read = self.file.read_at(&mut piece[..most], self.part.from)?;
        self.part.from += read as u64;
        Ok(read)
    }
}

fn side_by_side(
    host: &Host,
    mut clients: Vec<Flow>,
    file: &File,
    sections: &[DumpSection],
    text_bytes: u64,
    tell: fn(&str),
) -> Result<DumpScan> {
    let end = file.metadata()?.len();
    let parts = sections.iter().enumerate().map(|(at, section)| {
        let to = sections.get(at + 1).map_or(end, |next| next.offset);
        let is_in_order = section.offset <= to && to <= end;
        is_in_order.then_some((section.table.is_some(), DumpPart { from: section.offset, to }))
    });
    let damaged = || Exit::Unusable.because("the manifest does not fit the dump");
    let parts: Vec<(bool, DumpPart)> = parts.collect::<Option<_>>().ok_or_else(damaged)?;
    let mut parts = parts.into_iter();
    let mut head = Vec::new();
    let (_, part) = parts.next().ok_or_else(damaged)?;
    unpack_stream(Window { file, part })?.take(LARGEST_HEAD + 1).read_to_end(&mut head)?;
    if head.len() as u64 > LARGEST_HEAD {
        return Err(damaged());
    }
    let mut tables: Vec<DumpPart> = parts.filter(|(is_table, _)| *is_table).map(|(_, part)| part).collect();
    // The largest first: the last ones to be loaded should be small.
    tables.sort_by_key(|part| part.to - part.from);
    let queue = Mutex::new(tables);
    let progress = Mutex::new(LoadProgress { tell, done: 0, all: text_bytes, told: 0 });
    let inputs: Vec<ChildStdin> = clients
        .iter_mut()
        .map(|client| client.input.take().context("the client reads nothing"))
        .collect::<Result<_>>()?;
    let fed: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = inputs
            .into_iter()
            .map(|input| scope.spawn(|| feed_client(input, &head, file, &queue, &progress)))
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                let gone = || Err(io::Error::other("a thread ended"));
                worker.join().unwrap_or_else(|_| gone())
            })
            .collect()
    });
    let mut first = Ok(());
    for (client, fed) in clients.into_iter().zip(fed) {
        let ended = match fed {
            Ok(()) => client.end(host),
            Err(why) => Err(match read_or_written(why, host, None) {
                Some(read) => read,
                None => client.failed(host, anyhow!("the client stopped reading")),
            }),
        };
        first = first.and(ended);
    }
    first?;
    Ok(DumpScan::default())
}

fn feed_client(
    mut input: ChildStdin,
    head: &[u8],
    file: &File,
    queue: &Mutex<Vec<DumpPart>>,
    progress: &Mutex<LoadProgress>,
) -> io::Result<()> {
    fn lock_failed<T>(_: T) -> io::Error {
        io::Error::other("another thread failed")
    }
    let mut piece = vec![0; PIECE];
    loop {
        let Some(part) = queue.lock().map_err(lock_failed)?.pop() else {
            return Ok(());
        };
        // What is set for a dump: the end of the part before may have set it back.
        input.write_all(head)?;
        let is_large = part.to - part.from > LARGE;
        let mut text = unpack_stream(Window { file, part })?;
        let mut keys = None;
        if is_large {
            let begin = read_beginning(&mut text).map_err(DumpReadError::wrapped)?;
            let without = deferred_keys::split_keys(&begin).map(|(without, statement)| {
                keys = Some(statement);
                without
            });
            input.write_all(without.as_ref().unwrap_or(&begin))?;
            progress.lock().map_err(lock_failed)?.add(begin.len() as u64);
        }
        loop {
            let read = text.read(&mut piece).map_err(DumpReadError::wrapped)?;
            if read == 0 {
                break;
            }
            go_on()?;
            input.write_all(&piece[..read])?;
            progress.lock().map_err(lock_failed)?.add(read as u64);
        }
        if let Some(keys) = keys {
            input.write_all(keys.as_bytes())?;
        }
    }
}

/// A part up to where the statement that makes its table is whole, if it comes early.
fn read_beginning(text: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut begin = Vec::new();
    while begin.len() < LARGEST_CREATE && !deferred_keys::is_whole(&begin) {
        let before = begin.len();
        text.take(SMALL_PIECE).read_to_end(&mut begin)?;
        if begin.len() == before {
            break;
        }
    }
    Ok(begin)
}

/// How many rows each table of a database has, without ours.
pub(crate) async fn count_rows(known: &Database, database: &str) -> Result<BTreeMap<String, u64>> {
    let tables = sql::tables_of(&known.server, database).await?;
    let tables: Vec<String> = tables.into_iter().filter(|name| name != MARK).collect();
    let mut counts = BTreeMap::new();
    for some in tables.chunks(50) {
        let each: Vec<String> = some
            .iter()
            .enumerate()
            .map(|(at, table)| {
                format!("SELECT {at}, COUNT(*) FROM {}.{}", quote::quote_name(database), quote::quote_name(table))
            })
            .collect();
        let rows: Vec<(usize, u64)> = known.server.rows(&each.join(" UNION ALL ")).await?;
        let named = rows.into_iter().filter_map(|(at, rows)| Some((some.get(at)?.clone(), rows)));
        counts.extend(named);
    }
    Ok(counts)
}

/// Refuses what did not arrive as it was written down.
pub(crate) fn compare_counts(wanted: &BTreeMap<String, u64>, found: &BTreeMap<String, u64>) -> Result<()> {
    let names = wanted.keys().chain(found.keys());
    for name in names {
        let (wanted, found) = (wanted.get(name), found.get(name));
        if wanted != found {
            let rows = |rows: Option<&u64>| match rows {
                Some(rows) => format!("{rows} rows"),
                None => "no such table".to_owned(),
            };
            return Err(Exit::Unusable.because(format!(
                "the table {name} has {} in the dump, and {} once loaded; nothing was changed",
                rows(wanted),
                rows(found)
            )));
        }
    }
    Ok(())
}

/// Gives the tables of one database the names of another's, whose own go into a third one, in one step.
pub(crate) async fn switch_tables(known: &Database, from: &str, aside: &str) -> Result<()> {
    let live = &known.database;
    let mut all = rename_clauses(known, live, aside).await?;
    all.extend(rename_clauses(known, from, live).await?);
    known.server.change(&format!("RENAME TABLE {}", all.join(", "))).await
}

/// Moves the tables of one database into another that has none, in one step.
pub(crate) async fn hand_over(known: &Database, from: &str, to: &str) -> Result<()> {
    let all = rename_clauses(known, from, to).await?;
    known.server.change(&format!("RENAME TABLE {}", all.join(", "))).await
}

async fn rename_clauses(known: &Database, from: &str, to: &str) -> Result<Vec<String>> {
    let tables = sql::tables_of(&known.server, from).await?.into_iter();
    let moved = tables.filter(|table| table != MARK).map(|table| {
        let table = quote::quote_name(&table);
        format!("{}.{table} TO {}.{table}", quote::quote_name(from), quote::quote_name(to))
    });
    Ok(moved.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        let counts = |rows: &[(&str, u64)]| {
            rows.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect::<BTreeMap<_, _>>()
        };
        let wanted = counts(&[("a", 1), ("b", 2)]);
        assert!(compare_counts(&wanted, &wanted).is_ok());
        for other in [counts(&[("a", 1)]), counts(&[("a", 1), ("b", 3)]), counts(&[("a", 1), ("b", 2), ("c", 0)])] {
            let why = compare_counts(&wanted, &other).unwrap_err();
            assert_eq!(Exit::of(&why), Exit::Unusable);
        }
    }

    #[test]
    fn names_fit_and_differ() {
        let long = "x".repeat(64);
        for purpose in
            [ScratchDatabase::Verify, ScratchDatabase::Restore, ScratchDatabase::Replaced, ScratchDatabase::Anonymise]
        {
            assert!(scratch_name(&long, purpose).len() <= 64);
        }
        assert_ne!(scratch_name("a", ScratchDatabase::Verify), scratch_name("a", ScratchDatabase::Restore));
    }
}
