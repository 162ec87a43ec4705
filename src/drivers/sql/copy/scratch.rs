//! A database beside the others: to see whether a dump can be loaded, or to take the place of another.
//!
//! What a killed run left is known by a table of ours, and goes before the next one.

use crate::base::error::Exit;
use crate::base::secret::Secret;
use crate::drivers::sql::{self, Database, Power, quote};
use crate::host::Host;
use crate::probe::database::{DatabaseAddress, Login};
use anyhow::Result;
use std::collections::BTreeMap;

/// Says that a database is one of these, and whose.
const MARK: &str = "_camcops_provision_beside";

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
    /// For CamCOPS's own tests.
    Tests,
}

impl ScratchDatabase {
    const ALL: [ScratchDatabase; 5] = [
        ScratchDatabase::Verify,
        ScratchDatabase::Restore,
        ScratchDatabase::Replaced,
        ScratchDatabase::Anonymise,
        ScratchDatabase::Tests,
    ];
}

/// Its name: the settings allow no such name for the database of a site.
pub(crate) fn scratch_name(database: &str, purpose: ScratchDatabase) -> String {
    let short: String = database.chars().take(LONGEST).collect();
    let end = match purpose {
        ScratchDatabase::Verify => "verify",
        ScratchDatabase::Restore => "restore",
        ScratchDatabase::Replaced => "replaced",
        ScratchDatabase::Anonymise => "anonymise",
        ScratchDatabase::Tests => "tests",
    };
    format!("{short}-{end}")
}

/// Refuses where the server gives no power to make a database.
pub(crate) fn need_power(known: &Database, instead: &str) -> Result<()> {
    if known.server.power == Power::Administrator {
        return Ok(());
    }
    Err(Exit::NoPermission.because(format!(
        "this needs a temporary database at {}, but {} cannot create one: set database.admin_defaults_file to an option file of an administrator{instead}",
        known.server.endpoint.address, known.server.endpoint.user
    )))
}

/// Refuses where triggers are on the tables of a database: the server moves no table that has one.
pub(crate) async fn refuse_triggers(known: &Database) -> Result<()> {
    let mut triggers = sql::others_of(&known.server, &known.database).await?;
    triggers.retain(|what| what.starts_with(sql::TRIGGER));
    refuse_load(known, &triggers, "the server can't rename a table with triggers")
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
        "the database {} contains objects that are not part of CamCOPS ({}), and {why}; nothing was changed: save the output of SHOW CREATE for each, drop it, run this again, and create it again afterwards",
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
        return Err(Exit::Unusable.because("its character set is unknown"));
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
        return Err(Exit::CannotCreate.because(format!(
            "the database {name} was not created by camcops-provision; rename or remove it, and run again"
        )));
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
            "some tables of {} are in {}, and some of the new ones are still in {}: the server stopped while it renamed them; move them all to one database with RENAME TABLE, and run again",
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
    for purpose in ScratchDatabase::ALL {
        if drop_scratch(known, purpose).await? {
            known.tell.line(&format!(
                "removed the database {}, left over by an earlier run",
                scratch_name(&known.database, purpose)
            ));
        }
    }
    drop_account(known).await
}

/// Makes the one account that may use such a database, and nothing else.
pub(crate) async fn create_login(known: &Database, database: &str) -> Result<DatabaseAddress> {
    let server = &known.server;
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
    Ok(server.address_of(&user, Login::Password(password), database))
}

fn load_account(known: &Database) -> String {
    // MySQL allows 32 letters.
    let short: String = known.instance.chars().take(16).collect();
    format!("camcops-load-{short}")
}

pub(crate) async fn drop_account(known: &Database) -> Result<()> {
    let client = known.client().await?;
    let account = quote::quote_account(&load_account(known), &client);
    known.server.change(&format!("DROP USER IF EXISTS {account}")).await
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
            .map(|(at, table)| format!("SELECT {at}, COUNT(*) FROM {}", quote::quote_table(database, table)))
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
    let moved = tables
        .filter(|table| table != MARK)
        .map(|table| format!("{} TO {}", quote::quote_table(from, &table), quote::quote_table(to, &table)));
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
        for purpose in ScratchDatabase::ALL {
            assert!(scratch_name(&long, purpose).len() <= 64);
        }
        assert_ne!(scratch_name("a", ScratchDatabase::Verify), scratch_name("a", ScratchDatabase::Restore));
    }
}
