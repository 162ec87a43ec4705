//! `db anonymise`: a copy for research or training, in a database of its own, without what says who somebody is.
//!
//! What a column may keep is what the installed release declares of it; what is not declared is left out. Identifying
//! data is never written into the copy, so that nothing of it is left in the server's files. Pseudonyms come from a
//! random key that only the server's session knows, and is gone with it. The copy is made under another name, and gets
//! its own in one step at the end: one that was cut is never taken for a whole one.

mod columns;
mod login;
mod rules;
mod structure;

use super::reach_database;
use crate::base::error::Exit;
use crate::base::progress::{Amount, Tell, Unit};
use crate::base::report::Report;
use crate::base::secret::Secret;
use crate::base::signals::{Interrupt, stop_on_signals};
use crate::base::terminal::{Style, count_of, strip_controls};
use crate::base::text::absolute_path;
use crate::cli::{Anonymise, Global};
use crate::commands::need_machine;
use crate::drivers::sql::copy::load::{self, ScratchDatabase};
use crate::drivers::sql::{self, CHARSET, COLLATION, Database, quote};
use crate::drivers::tables;
use crate::journal;
use crate::session::Session;
use crate::settings::{DatabaseName, Setting};
use anyhow::{Context, Result};
use columns::{Column, Copied, Dictionary};
use mysql_async::Row;
use rules::CopyRules;
use serde_json::json;
use std::collections::BTreeMap;

const DICTIONARY: &str = include_str!("dictionary.py");
/// An older server has no such function.
const NO_FUNCTION: [u16; 2] = [1305, 1064];

pub(crate) async fn run(global: &Global, flags: &Anonymise) -> Result<Report> {
    need_machine(global, "copy the database")?;
    DatabaseName::read(&flags.to.as_str().into()).map_err(|why| {
        Exit::Usage.because(format!("--to {}: {why}; allowed: {}", flags.to, DatabaseName::allowed()))
    })?;
    let stop = stop_on_signals(Style::of(global))?;
    let (site, known) = reach_database(global).await?;
    let made = async {
        let rules = match &flags.rules {
            Some(file) => CopyRules::read(&site.host, &absolute_path(file)?)?,
            None => CopyRules::default(),
        };
        let login = login::wanted_login(&site, &known, flags).await?;
        let made = make_copy(&site, &known, &flags.to, &rules, stop).await?;
        if let Some(login) = &login {
            login.create(&known, &flags.to).await?;
        }
        anyhow::Ok((made, login))
    };
    let (made, login) = site.close_after(made.await).await?;
    let report = Report::new(json!({
        "instance": site.instance,
        "from": known.database,
        "database": flags.to,
        "tables": made.copied,
        "empty": made.empty,
        "left_out": made.left_out,
        "kept_by_rules": made.kept_by_rules,
        "login": login.as_ref().map(|login| login.name()),
    }));
    let readers = match &login {
        Some(login) => format!("{} can read it", login.name()),
        None => "only the server's administrator can read it so far".to_owned(),
    };
    let rows: u64 = made.copied.iter().map(|copied| copied.rows).sum();
    let of_tables =
        made.copied.iter().filter(|copied| copied.rows > 0).map(|copied| strip_controls(&copied.to_string()));
    let left_out = (!made.left_out.is_empty()).then(|| {
        format!("not copied, because this release does not know them: {}", strip_controls(&made.left_out.join(", ")))
    });
    Ok(report
        .with_lines(of_tables)
        .with_line(format!(
            "{} of {} copied to the database {}; {} created empty; {readers}",
            count_of(rows, "row"),
            known.database,
            flags.to,
            count_of(made.empty.len(), "table"),
        ))
        .with_lines(left_out)
        .with_warnings((!made.kept_by_rules.is_empty()).then(|| {
            format!(
                "kept only because of --rules, so look for names in them: {}",
                strip_controls(&made.kept_by_rules.join(", "))
            )
        }))
        .with_warnings([
            "the copy has no names, numbers, contacts, texts, pictures or users, but it has every answer with its time and the internal numbers of the records: those who can read the original can still identify a person, so treat it as pseudonymised",
        ]))
}

struct AnonymousCopy {
    copied: Vec<Copied>,
    empty: Vec<String>,
    left_out: Vec<String>,
    /// Columns that only the site's own rules keep.
    kept_by_rules: Vec<String>,
}

async fn make_copy(
    site: &Session,
    known: &Database,
    to: &str,
    rules: &CopyRules,
    stop: Interrupt,
) -> Result<AnonymousCopy> {
    let host = &site.host;
    load::need_power(known, "")?;
    let _lock = journal::try_lock(host)?;
    refuse_taken(known, to).await?;
    let what = format!("the database {}", known.database);
    let revision = tables::read_revision(known, &known.database).await?;
    tables::refuse_unknown(site.drivers.application()?, &site.host, revision.as_deref(), &what)?;
    load::check_room(host, known, tables::database_size(known).await?).await?;
    let tell = site.drivers.application()?.tell;
    tell.line("reading CamCOPS's declarations of its columns (some seconds)");
    let dictionary = read_dictionary(site)?;
    rules.check(&columns_of(known).await?, &dictionary)?;
    let beside = load::create_scratch(known, ScratchDatabase::Anonymise, CHARSET, COLLATION).await?;
    let copied = copy_tables(known, &beside, &dictionary, rules, stop, tell).await;
    let done = match copied {
        Ok(made) => handed_over(known, &beside, to).await.map(|()| made),
        Err(why) => Err(why),
    };
    let removed = load::drop_scratch(known, ScratchDatabase::Anonymise).await;
    let done = done?;
    removed?;
    Ok(done)
}

/// Never into what is there already, whosever it is.
async fn refuse_taken(known: &Database, to: &str) -> Result<()> {
    let there = known
        .server
        .number(&format!(
            "SELECT (SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = SCHEMA_NAME) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
            quote::quote_text(to)
        ))
        .await?;
    match there {
        // A run that was cut at its last step has left it.
        Some(0) if !to.eq_ignore_ascii_case(&known.database) => Ok(()),
        None => Ok(()),
        Some(_) => Err(Exit::CannotCreate.because(format!(
            "--to {to}: this database exists already, and a copy needs a new one; nothing was changed"
        ))),
    }
}

fn read_dictionary(site: &Session) -> Result<Dictionary> {
    let host = &site.host;
    let ended = site.drivers.application()?.command(host, "python")?.args(["-"]).input(DICTIONARY.as_bytes()).end()?;
    tables::check_success(&ended, "is asked for its tables, which", "fix the cause and run again")?;
    let dictionary: Dictionary =
        serde_json::from_str(&ended.output).context("the release's declarations of its tables can't be read")?;
    let declares = |table: &str, column: &str| {
        let kind = dictionary.get(table).and_then(|table| table.get(column));
        kind.is_some_and(|kind| kind == columns::IDENTIFYING)
    };
    // Where this is not declared any more, nothing else that is can be relied on.
    if declares("patient", "surname") && declares("patient_idnum", "idnum_value") {
        return Ok(dictionary);
    }
    Err(Exit::Unusable.because(
        "the installed release does not declare a patient's name as identifying, so identifying columns can't be recognised: nothing was changed",
    ))
}

async fn copy_tables(
    known: &Database,
    beside: &str,
    dictionary: &Dictionary,
    rules: &CopyRules,
    stop: Interrupt,
    tell: Tell,
) -> Result<AnonymousCopy> {
    let server = &known.server;
    let all = columns_of(known).await?;
    let mut left_out: Vec<String> = Vec::new();
    let mut wanted: Vec<&String> = Vec::new();
    for table in sql::tables_of(server, &known.database).await? {
        match all.get_key_value(&table) {
            Some((name, _)) if columns::is_known(&table, dictionary) => wanted.push(name),
            _ => left_out.push(table),
        }
    }
    // The key of the pseudonyms is in the statements: a binary log gets what they did, and not them.
    let are_logged: Option<(u8,)> =
        server.row("SELECT 1 FROM DUAL WHERE @@log_bin AND @@binlog_format <> 'ROW'").await?;
    if are_logged.is_some() {
        server.change("SET SESSION binlog_format = ROW").await?;
    }
    // The copy is made of what is whole by then: whoever is uploading meanwhile is not made to wait.
    for statement in [
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION foreign_key_checks = 0",
        "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES,NO_AUTO_VALUE_ON_ZERO'",
    ] {
        server.change(statement).await?;
    }
    let session = begin_session(known).await?;
    structure::make_structure(known, beside, &wanted).await?;
    // What refers to others first: what it refers to is there by the time its turn comes.
    wanted.sort_by_key(|table| columns::copy_rank(table));
    let mut made = AnonymousCopy { copied: Vec::new(), empty: Vec::new(), left_out, kept_by_rules: Vec::new() };
    let number = wanted.len();
    for (at, table) in wanted.into_iter().enumerate() {
        stop.check("stopped by a signal: no copy was made")?;
        tell.amount(Amount { what: "copying tables", done: at as u64, all: number as u64, unit: Unit::Items });
        let Some(plan) = columns::plan_columns(table, &all[table], dictionary, rules) else {
            made.empty.push(table.clone());
            continue;
        };
        made.kept_by_rules.extend(columns::kept_by_rules(table, &plan, dictionary));
        let (names, values): (Vec<String>, Vec<String>) =
            plan.iter().map(|(column, way)| (quote::quote_name(&column.name), way.value(column))).unzip();
        server
            .change(&format!(
                "INSERT INTO {} ({}) SELECT {} FROM {}",
                quoted_table(beside, table),
                names.join(", "),
                values.join(", "),
                quoted_table(&known.database, table)
            ))
            .await?;
        let rows = server.number(&format!("SELECT COUNT(*) FROM {}", quoted_table(beside, table))).await?;
        made.copied.push(Copied::new(table, rows.unwrap_or(0), &plan));
    }
    // Another session would have had another key, or none.
    let same: Option<(u64, bool)> =
        server.row(&format!("SELECT CONNECTION_ID(), {} IS NOT NULL", columns::KEY)).await?;
    if same != Some((session, true)) {
        return Err(Exit::Unreachable
            .because("the server stopped while the copy was made, and the copy was removed: run again"));
    }
    server.change(&format!("SET {} = NULL", columns::KEY)).await?;
    Ok(made)
}

/// A random key for this session; gives the session's number.
async fn begin_session(known: &Database) -> Result<u64> {
    let server = &known.server;
    let by_server = format!("SET {} = HEX(RANDOM_BYTES(32))", columns::KEY);
    let done: Option<Vec<Row>> = server.rows_if_any(&by_server, &NO_FUNCTION).await?;
    if done.is_none() {
        let key = Secret::generate()?;
        let by_us = format!("SET {} = {}", columns::KEY, quote::quote_text(key.reveal()));
        server.change(&by_us).await?;
    }
    server.number("SELECT CONNECTION_ID()").await?.context("the server does not report its session")
}

fn quoted_table(database: &str, table: &str) -> String {
    format!("{}.{}", quote::quote_name(database), quote::quote_name(table))
}

/// Every column of the site's tables, in order.
async fn columns_of(known: &Database) -> Result<BTreeMap<String, Vec<Column>>> {
    let rows: Vec<(String, String, String, String, String)> = known
        .server
        .rows(&format!(
            "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, IS_NULLABLE, EXTRA FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} ORDER BY TABLE_NAME, ORDINAL_POSITION",
            quote::quote_text(&known.database)
        ))
        .await?;
    let mut all: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for (table, name, data_type, nullable, extra) in rows {
        if extra.contains("GENERATED") {
            continue;
        }
        all.entry(table).or_default().push(Column { name, data_type, nullable: nullable == "YES" });
    }
    Ok(all)
}

/// Gives the copy its own name, in one step.
async fn handed_over(known: &Database, beside: &str, to: &str) -> Result<()> {
    refuse_taken(known, to).await?;
    let server = &known.server;
    server
        .change(&format!(
            "CREATE DATABASE IF NOT EXISTS {} CHARACTER SET {CHARSET} COLLATE {COLLATION}",
            quote::quote_name(to)
        ))
        .await?;
    load::hand_over(known, beside, to).await
}
