//! Tables brought back from a dump: loaded into a database beside, and put in the place of the others in one step.

use super::{application, dump, found};
use crate::error::Exit;
use crate::facts::DatabaseFamily;
use crate::host::Host;
use crate::resource::sql::{self, CHARSET, COLLATION, Known, quote};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// What is added to the name of a database for the one beside it that a dump is loaded into, and for the one that its
/// own tables go to.
const LOADED: &str = "_cp_loaded";
const AWAY: &str = "_cp_away";
/// What comes and goes by itself, without anybody having entered anything.
const PASSING: [&str; 4] = [
    "_security_webviewer_sessions",
    "_security_login_failures",
    "_security_account_lockouts",
    "_dirty_tables",
];

/// A sum over the content of each table that somebody enters something into: where it is the same, nothing is new.
pub async fn sums(known: &Known) -> Result<BTreeMap<String, String>> {
    let database = &known.database;
    let tables = sql::tables_of(&known.server, database).await?;
    let named: Vec<String> = tables
        .iter()
        .filter(|table| !PASSING.contains(&table.as_str()))
        .map(|table| format!("{}.{}", quote::name(database), quote::name(table)))
        .collect();
    if named.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<(String, Option<u64>)> = known
        .server
        .rows(&format!("CHECKSUM TABLE {}", named.join(", ")))
        .await?;
    let sum = |(table, sum): (String, Option<u64>)| {
        let table = table.split_once('.').map(|(_, table)| table.to_owned());
        Some((table?, sum?.to_string()))
    };
    Ok(rows.into_iter().filter_map(sum).collect())
}

/// Puts the tables of a dump in the place of those of the database; they are at this revision then. A run that was cut is
/// continued.
pub async fn bring_back(host: &Host, dump: &str, revision: &str) -> Result<()> {
    let (known, application) = (sql::known(host)?, application(host)?);
    let database = &known.database;
    let server = &known.server;
    server.started(host).await?;
    application.wait_for_old_run(host)?;
    let (loaded, away) = (format!("{database}{LOADED}"), format!("{database}{AWAY}"));
    let is_at = |found: Option<super::Found>| {
        found.is_some_and(|found| !found.unfinished && found.revision == revision)
    };
    let gone_before = !sql::tables_of(server, &away).await?.is_empty();
    if gone_before && !is_at(found(&known, database).await?) {
        return Err(Exit::Unusable.because(format!(
            "some tables of {database} are in {away}, and some are not: an earlier run was cut while the server moved them; the data is in the dump {dump}"
        )));
    }
    if !gone_before {
        (application.tell)(&format!("loading {dump} beside the database {database}"));
        server.change(&dropped(&loaded)).await?;
        server
            .change(&format!(
                "CREATE DATABASE {} CHARACTER SET {CHARSET} COLLATE {COLLATION}",
                quote::name(&loaded)
            ))
            .await?;
        load(host, &known, dump, &loaded).await?;
        if !is_at(found(&known, &loaded).await?) {
            bail!("the tables in the dump {dump} are not at revision {revision}");
        }
        let moved = moved(&known, &loaded, &away).await?;
        server
            .change(&format!(
                "CREATE DATABASE IF NOT EXISTS {} CHARACTER SET {CHARSET} COLLATE {COLLATION}",
                quote::name(&away)
            ))
            .await?;
        (application.tell)("putting them in the place of the others");
        server.change(&moved).await?;
    }
    for beside in [&loaded, &away] {
        server.change(&dropped(beside)).await?;
    }
    dump::end_upgrade(host, application, database)
}

fn dropped(database: &str) -> String {
    format!("DROP DATABASE IF EXISTS {}", quote::name(database))
}

/// The one statement that moves all tables: those of the database away, and the loaded ones in.
async fn moved(known: &Known, loaded: &str, away: &str) -> Result<String> {
    let database = &known.database;
    let path =
        |database: &str, table: &str| format!("{}.{}", quote::name(database), quote::name(table));
    let mut moves = Vec::new();
    for (from, to) in [(database.as_str(), away), (loaded, database.as_str())] {
        let tables = sql::tables_of(&known.server, from).await?;
        if tables.is_empty() {
            bail!("there is no table in {from}");
        }
        moves.extend(
            tables
                .iter()
                .map(|table| format!("{} TO {}", path(from, table), path(to, table))),
        );
    }
    Ok(format!("RENAME TABLE {}", moves.join(", ")))
}

/// Loads a dump by the client of the server's own family.
async fn load(host: &Host, known: &Known, dump: &str, database: &str) -> Result<()> {
    // It stands in a command of the client.
    if !dump.starts_with('/') || dump.contains(|c: char| c.is_whitespace() || c.is_control()) {
        bail!("{dump:?} is not the name of a dump of ours");
    }
    let family = known.server.identity().await?.family;
    let programs: &[&str] = match family {
        DatabaseFamily::Mariadb => &["mariadb", "mysql"],
        DatabaseFamily::Mysql => &["mysql"],
    };
    let find = |program| which::which_in(program, Some("/usr/bin:/usr/local/bin"), "/").ok();
    let program = programs.iter().find_map(find).ok_or_else(|| {
        Exit::Unreachable.because(format!(
            "{} is not on this machine to load the dump {dump}; install the client of the database",
            programs[0]
        ))
    })?;
    let login = format!("/run/camcops-provision-load-{database}.cnf");
    let options = dump::options(&known.server.endpoint, family)?;
    let authority = dump::authority(host, &known.server.endpoint, database)?;
    host.put_file(&login, options.as_bytes(), Some((0, 0)), 0o600)?;
    // An orphan would go on loading into what the next run clears away.
    let child = host.child("setpriv").bare();
    let child = child.args(["--pdeathsig", "KILL", "--"]).args([&program]);
    let mut child = child.args([
        &format!("--defaults-file={login}"),
        "--batch",
        "--default-character-set=utf8mb4",
        "--max-allowed-packet=1G",
    ]);
    if let Some(authority) = &authority {
        child = child.args([format!("--ssl-ca={authority}")]);
    }
    let loaded = child
        .args([
            &format!("--database={database}"),
            &format!("--execute=source {dump}"),
        ])
        .run();
    host.remove_file(&login)?;
    if let Some(authority) = &authority {
        host.remove_file(authority)?;
    }
    loaded
        .map(drop)
        .with_context(|| format!("the dump {dump} could not be loaded"))
}
