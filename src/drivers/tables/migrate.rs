//! How tables are made, and brought to the revision of the installed release.

use super::application::{Application, check_success};
use super::revisions::Revisions;
use super::{REVISION, Reader, UNFINISHED, dump, holds_anything, newest_revision, read_table_state, unusable_tables};
use crate::base::error::Exit;
use crate::base::progress::{Amount, Tell, Unit};
use crate::base::terminal::strip_controls;
use crate::drivers::sql::{self, Database, quote};
use crate::drivers::superuser::{self, type_twice};
use crate::host::Host;
use crate::resource::Enforced;
use anyhow::{Result, bail};

/// Puts the many small changes of the migrations together, which is only done while there is nothing to lose.
const FIRST_TABLES: &str = include_str!("first_tables.py");

/// What tells it the name of the first superuser, who is made as soon as there are tables. Where that fails, it is tried
/// again by itself, and what is wrong is told then.
const FIRST_SUPERUSER: &str = "CAMCOPS_FIRST_SUPERUSER";

/// Why tables stay when they are no longer wanted.
pub(crate) const KEPT: &str = "tables are never removed";

/// Makes the tables, or brings them to the revision of the installed release.
pub(crate) async fn make(known: &Database, application: &Application, host: &Host, name: &str) -> Result<Enforced> {
    known.server.started(host).await?;
    application.wait_for_old_run(host)?;
    newest_revision(application, host)?;
    let Some(revisions) = application.revisions(host)? else {
        bail!("the release has disappeared");
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
        application.tell.line("the tables were finished by an earlier run");
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
    quote::quote_table(database, UNFINISHED)
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
    let mut steps = Steps::new(application, revisions);
    let python = application.command(host, "python")?;
    let child = match application.first_superuser.take() {
        None => python.args(["-"]).args(arguments).input(FIRST_TABLES.as_bytes()),
        // Its input is for the password then, and the text has no secret in it.
        Some((name, password)) => {
            let input = type_twice(Some(&password));
            let child = python.args(["-c", FIRST_TABLES]).args(arguments).env(FIRST_SUPERUSER, &name);
            steps.superuser = Some(name);
            child.input(input.as_bytes())
        }
    };
    let mut ended = child.end_telling(|line| steps.hear(line))?;
    if !ended.status.success() {
        // A release that this program does not know may not like its changes put together.
        application.tell.line("that failed; trying again in small steps");
        let tables = sql::tables_of(&known.server, database).await?;
        drop_unfinished(known, database, &tables).await?;
        let child = application.command(host, "camcops_server")?.args(arguments);
        let steps = Steps::new(application, revisions);
        ended = child.end_telling(|line| steps.hear(line))?;
    }
    check_success(&ended, "upgrade_db", "run again: the tables are then created again")
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
            "the tables of the database {database} are at revision {revision}, which the installed release does not know (its newest is {}): they are from a newer CamCOPS; install that version, or restore a dump from before",
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
            "the old data is in the dump {whole}: `camcops-provision backup restore {whole} --confirm {database}` with the release that made it"
        );
    }
    let reindex = application.no_reindex.get().then_some("--no_reindex");
    let arguments = ["upgrade_db", "--config", &application.layout.config].into_iter().chain(reindex);
    let child = application.command(host, "camcops_server")?.args(arguments);
    let steps = Steps::new(application, revisions);
    let ended = child.end_telling(|line| steps.hear(line))?;
    check_success(&ended, "upgrade_db", &way_back)?;
    dump::end_upgrade(host, application, database)
}

/// How far the migrations are.
struct Steps<'a> {
    tell: Tell,
    revisions: &'a Revisions,
    /// Who is made after them.
    superuser: Option<String>,
}

impl<'a> Steps<'a> {
    fn new(application: &'a Application, revisions: &'a Revisions) -> Steps<'a> {
        Steps { tell: application.tell, revisions, superuser: None }
    }

    fn hear(&self, line: &str) {
        if line.contains("Creating superuser ")
            && let Some(name) = &self.superuser
        {
            superuser::tell_begin(self.tell, name);
        }
        if let Some(done) = self.count_revision(line) {
            let all = self.revisions.all.len() as u64;
            self.tell.amount(Amount { what: "table revisions", done, all, unit: Unit::Items });
        }
    }

    /// Which of the revisions the tables have now, from one.
    fn count_revision(&self, line: &str) -> Option<u64> {
        let plain = strip_controls(line);
        let (_, step) = plain.split_once("Running upgrade ")?;
        let revision = step.split([' ', ',']).nth(2)?;
        let before = self.revisions.all.iter().position(|known| known == revision)?;
        Some(before as u64 + 1)
    }
}

/// Removes what a cut run left of the first tables; only if there is nothing in them.
async fn drop_unfinished(known: &Database, database: &str, tables: &[String]) -> Result<()> {
    if holds_anything(known, database, tables).await? {
        return Err(unusable_tables(database, "were never finished, but contain data"));
    }
    let server = &known.server;
    server.change("SET SESSION foreign_key_checks = 0").await?;
    // Ours goes last of all, when the new ones are there.
    for table in tables.iter().filter(|table| *table != UNFINISHED) {
        server.change(&format!("DROP TABLE IF EXISTS {}", quote::quote_table(database, table))).await?;
    }
    server.change("SET SESSION foreign_key_checks = 1").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_is_told_by_its_place_among_all() {
        let revisions = Revisions { head: "0087".into(), all: (1..=87).map(|number| format!("{number:04}")).collect() };
        let steps = Steps { tell: Tell::NOBODY, revisions: &revisions, superuser: None };
        let counted =
            |to: &str| steps.count_revision(&format!("\u{1b}[37mINFO: Running upgrade 0000 -> {to}, more -> words"));
        assert_eq!(counted("0009"), Some(9));
        assert_eq!(counted("0087"), Some(87));
        assert_eq!(counted("0088"), None);
        assert_eq!(steps.count_revision("INFO: something else"), None);
    }
}
