//! The application's tables in a database.
//!
//! Facet: `revision`, `head` where the tables are what the installed release makes, else the revision that they are at.
//! One query asks for it, and the release is asked through the texts of its migrations: its own commands take seconds.
//!
//! Tables that hold anything are dumped first, and the dump is checked: the server makes each change of a table durable
//! by itself, so a migration that fails leaves the tables half-way, and the dump is the only way back.
//!
//! While the very first tables are made, a table of ours says so. A run that was cut there is started over.

mod dump;
mod restore;
mod revisions;

use super::sql::{self, Database, quote};
use crate::base::error::Exit;
use crate::base::terminal::strip_controls;
use crate::drivers::sql::copy::load;
use crate::host::{Child, Ended, Host};
use crate::layout::{Layout, PYTHON_HOME};
use crate::resource::{Enforced, Facets, State};
use crate::settings::Backup;
use anyhow::{Context, Result, bail};
pub(crate) use dump::Reader;
pub(crate) use restore::{bring_back, table_sums};
use revisions::Revisions;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::task::spawn_blocking;

/// Says that the first tables are being made.
const UNFINISHED: &str = "_camcops_provision_unfinished";
/// Where the application keeps the revision of its tables.
const REVISION: &str = "_alembic_version";
/// The value of the facet where nothing is to be done.
pub(crate) const HEAD: &str = "head";
/// There is no such table, or no such database.
const NOT_THERE: [u16; 2] = [1146, 1049];
/// Puts the many small changes of the migrations together, which is only done while there is nothing to lose.
const FIRST_TABLES: &str = include_str!("tables/first_tables.py");
/// How long to wait for a command of an earlier run that was cut.
const OLD_RUN_S: &str = "900";

/// How commands of the application are run.
#[derive(Debug)]
pub(crate) struct Application {
    /// The account of the services.
    pub(crate) account: String,
    /// Its environment and its directories.
    pub(crate) environment: Vec<(String, String)>,
    /// Where the tables' dumps go.
    pub(crate) dumps: String,
    /// Who alone can read those that this program needs not read again.
    pub(crate) recipient: Option<String>,
    /// Is told what is going on.
    pub(crate) tell: fn(&str),
    /// The dump that was just made while nobody could write: a migration needs no other one.
    pub(crate) dumped: RefCell<Option<String>>,
    layout: Layout,
    revisions: RefCell<Option<Option<Rc<Revisions>>>>,
}

impl Application {
    /// The account of the services runs them; `tell` is told what is going on.
    pub(crate) fn new(
        account: &str,
        layout: &Layout,
        backup: &Backup,
        magick_suffix: &str,
        tell: fn(&str),
    ) -> Application {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut environment = vec![
            variable("CAMCOPS_CONFIG_FILE", &layout.config),
            variable("HOME", &layout.state),
            variable("LANG", "C.UTF-8"),
            variable("MPLCONFIGDIR", &layout.matplotlib),
            variable("PYTHONDONTWRITEBYTECODE", "1"),
            variable("PYTHONPATH", PYTHON_HOME),
            variable("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ];
        if !magick_suffix.is_empty() {
            environment.push(variable("WAND_MAGICK_LIBRARY_SUFFIX", magick_suffix));
        }
        let recipient = backup.encrypt_to.as_ref();
        Application {
            account: account.to_owned(),
            environment,
            dumps: backup.directory.as_str().to_owned(),
            recipient: recipient.map(|recipient| recipient.as_str().to_owned()),
            tell,
            dumped: RefCell::default(),
            layout: layout.clone(),
            revisions: RefCell::default(),
        }
    }

    /// The release may have been changed.
    pub(crate) fn forget(&self) {
        self.revisions.take();
    }

    /// The migrations of the installed release; nothing where there is none.
    async fn revisions(&self) -> Result<Option<Rc<Revisions>>> {
        if let Some(known) = &*self.revisions.borrow() {
            return Ok(known.clone());
        }
        let venv = self.layout.venv.clone();
        let found = spawn_blocking(move || Revisions::read(&venv)).await??;
        let found = found.map(Rc::new);
        self.revisions.replace(Some(found.clone()));
        Ok(found)
    }

    /// A program of the installed release, as the account of the services, in a session of its own. It holds a lock
    /// until it ends, even if this program is killed meanwhile.
    pub(crate) fn command<'a>(&self, host: &'a Host, program: &str) -> Result<Child<'a>> {
        let program = format!("{}/bin/{program}", self.layout.venv);
        if std::fs::metadata(&program).is_err() {
            return Err(Exit::Unreachable.because(format!(
                "there is no CamCOPS at {}: run `camcops-provision install` without --only and --skip",
                self.layout.venv
            )));
        }
        let (uid, gid) = host
            .accounts
            .owner(&format!("{0}:{0}", self.account))
            .with_context(|| format!("the account {} does not exist", self.account))?;
        let lock = self.lock(host)?;
        let child = host
            .child("flock")
            .bare()
            .args(["--timeout", OLD_RUN_S, &lock, "setsid", "--wait", "setpriv"])
            .args([format!("--reuid={uid}"), format!("--regid={gid}")])
            .args(["--init-groups", "--", &program])
            .directory(&self.layout.state);
        let environment = self.environment.iter();
        Ok(environment.fold(child, |child, (name, value)| child.env(name, value)))
    }

    /// What a command of CamCOPS holds while it runs. Whoever can read it could hold it, too.
    fn lock(&self, host: &Host) -> Result<String> {
        let lock = host.runtime_file(&format!("{}.lock", self.layout.slug))?;
        match host.stat(&lock)? {
            Some(_) => host.set(&lock, Some((0, 0)), Some(0o600))?,
            None => host.put_file(&lock, b"", Some((0, 0)), 0o600)?,
        }
        Ok(lock)
    }

    /// Waits until a command that an earlier run left behind has ended.
    pub(crate) fn wait_for_old_run(&self, host: &Host) -> Result<()> {
        let lock = self.lock(host)?;
        let arguments = ["--nonblock", lock.as_str(), "true"];
        if host.child("flock").args(arguments).end()?.status.success() {
            return Ok(());
        }
        (self.tell)("waiting for a command of CamCOPS that an earlier run started");
        host.child("flock")
            .args(["--timeout", OLD_RUN_S, &lock, "true"])
            .run()
            .context("a command of CamCOPS that an earlier run started does not end")?;
        Ok(())
    }
}

/// At which revision the tables are.
pub(crate) async fn observe(known: &Database, application: &Application, name: &str) -> Result<State> {
    if !known.server.is_there().await? {
        return Ok(State::Absent);
    }
    let Some(found) = read_table_state(known, name).await? else {
        return Ok(State::Absent);
    };
    if found.unfinished {
        return Ok(State::Absent);
    }
    let head = application.revisions().await?;
    let revision = match head.is_some_and(|revisions| revisions.head == found.revision) {
        true => HEAD.to_owned(),
        false => found.revision,
    };
    Ok(State::Present(Facets::new().with("revision", revision)))
}

/// What a database says about its tables.
struct TableState {
    revision: String,
    unfinished: bool,
}

async fn read_table_state(known: &Database, database: &str) -> Result<Option<TableState>> {
    let there = sql::tables_among(&known.server, database, &[REVISION, UNFINISHED]).await?;
    if !there.iter().any(|table| table == REVISION) {
        return Ok(None);
    }
    let rows: Option<Vec<(String,)>> = known
        .server
        .rows_if_any(
            &format!("SELECT version_num FROM {}.{}", quote::quote_name(database), quote::quote_name(REVISION),),
            &NOT_THERE,
        )
        .await?;
    let Some(rows) = rows else { return Ok(None) };
    let several = rows.len() > 1;
    match rows.into_iter().next() {
        Some(_) if several => Err(unusable_tables(database, "are at several revisions at once")),
        Some((revision,)) => {
            Ok(Some(TableState { revision, unfinished: there.iter().any(|table| table == UNFINISHED) }))
        }
        None => Ok(None),
    }
}

/// At which revision the tables of a database are; nothing where they were never finished.
pub(crate) async fn read_revision(known: &Database, database: &str) -> Result<Option<String>> {
    let found = read_table_state(known, database).await?;
    Ok(found.filter(|found| !found.unfinished).map(|found| found.revision))
}

/// Refuses tables that the installed release does not know, before anything is done with them.
pub(crate) async fn refuse_unknown(application: &Application, revision: Option<&str>, what: &str) -> Result<()> {
    let Some(revision) = revision else {
        return Err(Exit::Unusable.because(format!(
            "{what} has no tables of CamCOPS, or they do not say their revision; nothing was changed"
        )));
    };
    let Some(revisions) = application.revisions().await? else {
        return Ok(());
    };
    if revisions.all.contains(revision) {
        return Ok(());
    }
    Err(Exit::Unusable.because(format!(
        "{what} has tables at revision {revision}, which the installed release does not know (its newest is {}): a newer CamCOPS made them; nothing was changed: install that one first",
        revisions.head
    )))
}

/// Whether these are tables of CamCOPS, or the beginning of them.
pub(crate) fn are_ours(tables: &[String]) -> bool {
    let is_ours = |table: &String| table == REVISION || table == UNFINISHED;
    tables.iter().any(is_ours)
}

/// The tables of the site's database that tablets fill, as far as they have rows, and how many.
pub(crate) async fn count_clinical(known: &Database) -> Result<BTreeMap<String, u64>> {
    let database = &known.database;
    let of_tablets: Vec<(String,)> = known
        .server
        .rows(&format!(
            "SELECT TABLE_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} AND COLUMN_NAME = '_era'",
            quote::quote_text(database)
        ))
        .await?;
    let mut counts = load::count_rows(known, database).await?;
    counts.retain(|table, rows| *rows > 0 && of_tablets.iter().any(|(name,)| name == table));
    Ok(counts)
}

/// The revision that the installed release works with.
pub(crate) async fn newest_revision(application: &Application, host: &Host) -> Result<String> {
    match application.revisions().await? {
        Some(revisions) => Ok(revisions.head.clone()),
        None => {
            // This says what to do.
            application.command(host, "camcops_server")?;
            bail!("the release at {} has no migrations", application.layout.venv)
        }
    }
}

/// Whether any table of a database has a row, besides the one that says the revision.
pub(crate) async fn has_data(known: &Database, database: &str) -> Result<bool> {
    let tables = sql::tables_of(&known.server, database).await?;
    holds_anything(known, database, &tables).await
}

fn unusable_tables(database: &str, what: &str) -> anyhow::Error {
    Exit::Unusable.because(format!(
        "the tables of the database {database} {what}: an upgrade of them was cut or is at work; wait for it, or bring back a dump from before it, and run again"
    ))
}

/// Why tables stay when they are no longer wanted.
pub(crate) const KEPT: &str = "tables are never removed";

/// Makes the tables, or brings them to the revision of the installed release.
pub(crate) async fn make(known: &Database, application: &Application, host: &Host, name: &str) -> Result<Enforced> {
    known.server.started(host).await?;
    application.wait_for_old_run(host)?;
    newest_revision(application, host).await?;
    let Some(revisions) = application.revisions().await? else {
        bail!("the release has just gone");
    };
    let tables = sql::tables_of(&known.server, name).await?;
    let found = read_table_state(known, name).await?;
    let unfinished = tables.iter().any(|table| table == UNFINISHED);
    let at_head = found.as_ref().is_some_and(|found| found.revision == revisions.head);
    if unfinished && !at_head {
        drop_unfinished(known, name, &tables).await?;
    }
    if tables.is_empty() || unfinished && !at_head {
        make_first(known, application, host, name, &revisions).await?;
    } else if unfinished {
        (application.tell)("the tables were finished by an earlier run");
    } else {
        let Some(found) = found else {
            return Err(match tables.iter().any(|table| table == REVISION) {
                true => unusable_tables(name, "have no revision"),
                false => Exit::CannotCreate.because(format!(
                    "the database {name} has tables, but not those of CamCOPS ({}, …): choose another database.name",
                    tables[0]
                )),
            });
        };
        migrate_tables(known, application, host, name, &tables, &found.revision, &revisions).await?;
    }
    if !tables.is_empty() && !unfinished {
        return Ok(Enforced::Done);
    }
    known.server.change(&format!("DROP TABLE IF EXISTS {}", unfinished_table(name))).await?;
    Ok(Enforced::Done)
}

fn unfinished_table(database: &str) -> String {
    format!("{}.{}", quote::quote_name(database), quote::quote_name(UNFINISHED))
}

/// Tables where there were none.
async fn make_first(
    known: &Database,
    application: &Application,
    host: &Host,
    database: &str,
    revisions: &Revisions,
) -> Result<()> {
    known
        .server
        .change(&format!(
            "CREATE TABLE IF NOT EXISTS {} (since TIMESTAMP DEFAULT CURRENT_TIMESTAMP)",
            unfinished_table(database)
        ))
        .await?;
    // Nothing is there that could be indexed.
    let arguments = ["upgrade_db", "--no_reindex", "--config", &application.layout.config];
    let child = application.command(host, "python")?.args(["-"]).args(arguments).input(FIRST_TABLES.as_bytes());
    let mut steps = Steps::new(application, revisions);
    let mut ended = child.end_telling(|line| steps.hear(line))?;
    if !ended.status.success() {
        // A release that this program does not know may not like its changes put together.
        (application.tell)("that failed; once more, one small change at a time");
        let tables = sql::tables_of(&known.server, database).await?;
        drop_unfinished(known, database, &tables).await?;
        let child = application.command(host, "camcops_server")?.args(arguments);
        let mut steps = Steps::new(application, revisions);
        ended = child.end_telling(|line| steps.hear(line))?;
    }
    check_success(&ended, "upgrade_db", "run again: the tables are then made anew")
}

/// Brings tables that are there to the head, after a dump if they hold anything.
async fn migrate_tables(
    known: &Database,
    application: &Application,
    host: &Host,
    database: &str,
    tables: &[String],
    revision: &str,
    revisions: &Revisions,
) -> Result<()> {
    if !revisions.all.contains(revision) {
        return Err(Exit::Unusable.because(format!(
            "the tables of the database {database} are at revision {revision}, which the installed release does not know (its newest is {}): they were made by a newer CamCOPS; install that one, or bring back a dump from before",
            revisions.head
        )));
    }
    let mut way_back = "run again".to_owned();
    let cut = dump::of_cut_upgrade(host, application, database)?;
    let dumped = application.dumped.borrow().clone();
    let dump = match dumped {
        Some(dump) => Some(dump),
        None if holds_anything(known, database, tables).await? => {
            let next = &revisions.head;
            Some(dump::make_dump(host, known, application, tables, revision, next, Reader::Program).await?)
        }
        None => None,
    };
    if let Some(dump) = dump {
        // What a cut upgrade left is not what anybody wants back.
        let whole = cut.unwrap_or(dump);
        dump::begin_upgrade(host, application, database, &whole)?;
        way_back = format!(
            "the way back is the dump {whole}: `camcops-provision backup restore {whole} --confirm {database}` with the release that made it"
        );
    }
    let child =
        application.command(host, "camcops_server")?.args(["upgrade_db", "--config", &application.layout.config]);
    let mut steps = Steps::new(application, revisions);
    let ended = child.end_telling(|line| steps.hear(line))?;
    check_success(&ended, "upgrade_db", &way_back)?;
    dump::end_upgrade(host, application, database)
}

/// Dumps a database before something is done to it, and says in the dump's name what; nothing if there is nothing in it.
pub(crate) async fn dump_before(
    known: &Database,
    application: &Application,
    host: &Host,
    name: &str,
    next: &str,
    reader: Reader,
) -> Result<Option<String>> {
    known.server.started(host).await?;
    // What an earlier run left would be taken for a part of the change that begins here.
    load::clear_up(known).await?;
    let tables = sql::tables_of(&known.server, name).await?;
    if !holds_anything(known, name, &tables).await? {
        return Ok(None);
    }
    let found = read_table_state(known, name).await?;
    let revision = found.map_or_else(|| "unknown".to_owned(), |found| found.revision);
    let dump = dump::make_dump(host, known, application, &tables, &revision, next, reader);
    Ok(Some(dump.await?))
}

/// Whether a migration from this revision was begun, wherever it ended.
pub(crate) async fn was_begun(known: &Database, application: &Application, host: &Host, from: &str) -> Result<bool> {
    let cut = dump::of_cut_upgrade(host, application, &known.database)?;
    Ok(cut.is_some() || read_revision(known, &known.database).await?.as_deref() != Some(from))
}

/// The revision that a release works with; nothing where there is no such release.
pub(crate) async fn head_of(release: &str) -> Result<Option<String>> {
    let path = format!("{}/{release}", crate::layout::RELEASES);
    let found = spawn_blocking(move || Revisions::read(&path)).await??;
    Ok(found.map(|found| found.head))
}

/// What the data of a database takes, in bytes, indexes included.
pub(crate) async fn database_size(known: &Database) -> Result<u64> {
    let size: Option<(Option<u64>,)> = known
        .server
        .row(&format!(
            "SELECT CAST(SUM(DATA_LENGTH + INDEX_LENGTH) AS UNSIGNED) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {}",
            quote::quote_text(&known.database)
        ))
        .await?;
    Ok(size.and_then(|(size,)| size).unwrap_or(0))
}

/// How far the migrations are, told about ten times.
struct Steps<'a> {
    tell: fn(&str),
    revisions: &'a Revisions,
    seen: usize,
}

impl<'a> Steps<'a> {
    const TOLD: usize = 10;

    fn new(application: &'a Application, revisions: &'a Revisions) -> Steps<'a> {
        Steps { tell: application.tell, revisions, seen: 0 }
    }

    fn hear(&mut self, line: &str) {
        if let Some(step) = self.worth_telling(line) {
            (self.tell)(&step);
        }
    }

    fn worth_telling(&mut self, line: &str) -> Option<String> {
        let plain = strip_controls(line);
        let (_, step) = plain.split_once("Running upgrade ")?;
        let revision = step.split([' ', ',']).nth(2)?;
        self.seen += 1;
        let every = self.revisions.all.len().div_ceil(Self::TOLD);
        let head = &self.revisions.head;
        (self.seen.is_multiple_of(every) || revision == head).then(|| format!("tables: revision {revision} of {head}"))
    }
}

/// Whether a command of the application ended well; else its last words, and what to do.
pub(crate) fn check_success(ended: &Ended, command: &str, next: &str) -> Result<()> {
    if ended.status.success() {
        return Ok(());
    }
    bail!("camcops_server {command} failed ({}): {}; {next}", ended.status, strip_controls(&ended.last_words()))
}

/// Whether any table has a row, besides the one that says the revision.
async fn holds_anything(known: &Database, database: &str, tables: &[String]) -> Result<bool> {
    let database = quote::quote_name(database);
    let each: Vec<String> = tables
        .iter()
        .filter(|table| *table != REVISION && *table != UNFINISHED)
        .map(|table| format!("EXISTS(SELECT 1 FROM {database}.{})", quote::quote_name(table)))
        .collect();
    if each.is_empty() {
        return Ok(false);
    }
    let any: Option<(u8,)> = known.server.row(&format!("SELECT {}", each.join(" OR "))).await?;
    Ok(any.is_none_or(|(any,)| any != 0))
}

/// Removes what a cut run left of the first tables; only if there is nothing in them.
async fn drop_unfinished(known: &Database, database: &str, tables: &[String]) -> Result<()> {
    if holds_anything(known, database, tables).await? {
        return Err(unusable_tables(database, "were never finished, but hold data"));
    }
    let server = &known.server;
    server.change("SET SESSION foreign_key_checks = 0").await?;
    // Ours goes last of all, when the new ones are there.
    for table in tables.iter().filter(|table| *table != UNFINISHED) {
        let table = format!("{}.{}", quote::quote_name(database), quote::quote_name(table));
        server.change(&format!("DROP TABLE IF EXISTS {table}")).await?;
    }
    server.change("SET SESSION foreign_key_checks = 1").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_migrations_about_ten_are_told() {
        let revisions = Revisions { head: "0087".into(), all: (1..=87).map(|number| format!("{number:04}")).collect() };
        let told = |numbers: std::ops::RangeInclusive<u32>| {
            let mut steps = Steps { tell: |_| {}, revisions: &revisions, seen: 0 };
            let lines =
                numbers.map(|to| format!("\u{1b}[37mINFO: Running upgrade {:04} -> {to:04}, more -> words", to - 1));
            lines.filter_map(|line| steps.worth_telling(&line)).collect::<Vec<_>>()
        };
        let all = told(1..=87);
        assert!((8..=11).contains(&all.len()), "{all:?}");
        assert_eq!(all[0], "tables: revision 0009 of 0087");
        assert_eq!(all[all.len() - 1], "tables: revision 0087 of 0087");
        assert_eq!(told(86..=87), ["tables: revision 0087 of 0087"]);
    }

    #[test]
    fn colours_go_and_words_stay() {
        assert_eq!(strip_controls("\u{1b}[37mINFO: \u{1b}[0mdone\u{1b}[1;33m!"), "INFO: done!");
    }
}
