//! The database, as the application and as its administrator see it.

use super::look::mended_by_install;
use super::{Finding, Health, Look, or_well};
use crate::base::terminal::{count_of, strip_controls};
use crate::drivers::sql::{self, COLLATION, Database, Power, quote};
use crate::drivers::tables::check_success;
use crate::probe::database::DatabaseAddress;
use crate::recipe::view;
use crate::resource::Resource;
use crate::settings::{Listen, Mode};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::time::Duration;

/// A server that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What CamCOPS's own documentation asks for.
const LEAST_PACKET: u64 = 32 << 20;
/// For administrators, dumps and this program.
const OTHERS: u64 = 10;
/// Before these versions there was no row format with room for CamCOPS's wide tables.
const OLDEST: [(&str, (u32, u32)); 2] = [("MariaDB", (10, 2)), ("MySQL", (5, 7))];
/// Gives every table the collation of CamCOPS.
const FIX_COLLATION: &str = "camcops-provision db check --fix-collation";
/// So many tables are named, and the rest counted.
const SHOWN: usize = 5;

pub(crate) async fn check_login(look: &Look<'_>) -> Result<Vec<Finding>> {
    let mut findings = vec![try_login(look).await?];
    let wanted = look.site.settings().database.listen.all();
    if findings[0].state == Health::Ok && !wanted.is_empty() {
        findings.push(check_listen(look, wanted).await?);
    }
    Ok(findings)
}

/// Whether a local server listens where the settings say: another option file may say otherwise.
async fn check_listen(look: &Look<'_>, wanted: &[Listen]) -> Result<Finding> {
    let known = look.database().await?;
    let row: Option<(Option<String>,)> = known.server.row("SELECT @@bind_address").await?;
    let found = row.and_then(|(address,)| address).unwrap_or_default();
    let is_in = |listen: &Listen| match listen {
        Listen::Any => ["*", "", "::"].contains(&found.as_str()),
        Listen::Address(address) => found.split(',').any(|one| one.trim().parse() == Ok(*address)),
    };
    let is_there = wanted.iter().all(is_in) && found.split(',').count() == wanted.len();
    let listen = wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Ok(match is_there {
        true => Finding::ok(format!("it listens on {listen}")),
        false => Finding::warning(
            format!("it listens on {found}, not on {listen} (database.listen): another option file sets bind-address"),
            "grep --recursive bind-address /etc/mysql /etc/my.cnf /etc/my.cnf.d",
        ),
    })
}

async fn try_login(look: &Look<'_>) -> Result<Finding> {
    let site = look.site;
    if look.before && site.settings().database.mode == Mode::Local {
        return Ok(Finding::not_applicable("install sets it up"));
    }
    let endpoint = match DatabaseAddress::of(&site.host, &site.settings().database, &site.layout, site.socket_account())
    {
        Ok(endpoint) => endpoint,
        Err(_) if look.before => {
            return Ok(Finding::not_applicable("its account is created by install"));
        }
        Err(why) => return Err(why),
    };
    let answer = match endpoint.answers(PATIENCE).await {
        Ok(answer) => answer,
        Err(why) => {
            let remedy = match site.settings().database.mode {
                Mode::Local => "camcops-provision install",
                Mode::External => "camcops-provision wait --for database",
            };
            return Ok(Finding::failed(why.text, remedy));
        }
    };
    let version = answer.version.as_deref().unwrap_or_default();
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let oldest = OLDEST.iter().find(|(name, _)| *name == answer.product);
    Ok(match oldest {
        Some((_, oldest)) if number < *oldest => Finding::failed(
            format!("{answer} is older than {}.{}", oldest.0, oldest.1),
            "apt-get install mariadb-server   # from a supported release of the distribution",
        ),
        _ => Finding::ok(format!("{answer} at {}", endpoint.address)),
    })
}

/// A statement as a command line. A name in it may be of anybody's making, and is not to end the text for the shell.
fn by_client(look: &Look<'_>, statement: &str) -> String {
    let statement = statement.replace('\'', r"'\''");
    match look.site.settings().database.mode {
        Mode::Local => format!("mysql --execute '{statement}'"),
        Mode::External => {
            format!("mysql --host {} --execute '{statement}'", look.site.settings().database.host.as_str())
        }
    }
}

pub(crate) async fn check_packet(look: &Look<'_>) -> Result<Finding> {
    let known = look.database().await?;
    let packet = known.server.number("SELECT @@GLOBAL.max_allowed_packet").await?;
    let packet = packet.context("the server does not report max_allowed_packet")?;
    let found = format!("max_allowed_packet is {} MiB", packet >> 20);
    if packet >= LEAST_PACKET {
        return Ok(Finding::ok(found));
    }
    let database = &look.site.settings().database;
    let remedy = match database.mode == Mode::Local && database.tuning {
        true => "camcops-provision install".to_owned(),
        false => by_client(look, "SET GLOBAL max_allowed_packet = 67108864"),
    };
    Ok(Finding::failed(format!("{found}, and CamCOPS needs 32"), remedy))
}

pub(crate) async fn check_connections(look: &Look<'_>) -> Result<Finding> {
    let known = look.database().await?;
    let most = known.server.number("SELECT @@GLOBAL.max_connections").await?;
    let most = most.context("the server does not report max_connections")?;
    let status: Vec<(String, String)> = known
        .server
        .rows("SHOW GLOBAL STATUS WHERE Variable_name IN ('Max_used_connections', 'Threads_connected')")
        .await?;
    let status: BTreeMap<String, u64> =
        status.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect();
    let value = |name: &str| status.get(name).copied().unwrap_or(0);
    let (used, now) = (value("Max_used_connections"), value("Threads_connected"));
    look.measure("database_connections", None, now as f64);
    look.measure("database_connections_max", None, most as f64);
    let needed = view::needs_of_site(look.site).connections + OTHERS;
    let found = format!("{now} of {most} connections in use, {used} at most so far; the site may open {needed}");
    let more = (needed * 2).max(151);
    let remedy = format!(
        "{}   # and set `max_connections = {more}` in the server's configuration",
        by_client(look, &format!("SET GLOBAL max_connections = {more}"))
    );
    Ok(if most < needed {
        Finding::failed(found, remedy)
    } else if used * 10 >= most * 9 {
        Finding::warning(found, remedy)
    } else {
        Finding::ok(found)
    })
}

pub(crate) async fn check_tables(look: &Look<'_>) -> Result<Vec<Finding>> {
    let known = look.database().await?;
    let defaults = look
        .pending(|planned| {
            let facets = &planned.facets;
            matches!(planned.change.resource, Resource::Schema(_)) && facets.iter().any(|facet| facet != "max_packet")
        })
        .await
        // Where no plan can be made, `settings` tells why.
        .unwrap_or_default();
    let name = quote::quote_text(&known.database);
    let all = known
        .server
        .number(&format!(
            "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {name} AND TABLE_TYPE = 'BASE TABLE'"
        ))
        .await?;
    let all = all.unwrap_or(0);
    // Of a database that has tables, install leaves this alone.
    let mut findings = match (defaults.is_empty(), all) {
        (true, _) => Vec::new(),
        (false, 0) => mended_by_install(defaults, ""),
        (false, _) => vec![Finding::failed(defaults.join(", "), FIX_COLLATION)],
    };
    findings.extend(wrong_collations(&known, all).await?);
    let old: Vec<(String, Option<String>, Option<String>)> = known
        .server
        .rows(&format!(
            "SELECT TABLE_NAME, ENGINE, ROW_FORMAT FROM information_schema.TABLES WHERE TABLE_SCHEMA = {name} AND TABLE_TYPE = 'BASE TABLE' \
             AND (ENGINE <> 'InnoDB' OR ROW_FORMAT NOT IN ('Dynamic', 'Compressed')) ORDER BY TABLE_NAME"
        ))
        .await?;
    for (table, engine, format) in old.iter().take(SHOWN) {
        findings.push(Finding::failed(
            format!(
                "{} is a table of {} with row format {}",
                strip_controls(table),
                engine.as_deref().unwrap_or("no engine"),
                format.as_deref().unwrap_or("unknown")
            ),
            alter_statement(look, &known, table, "ENGINE = InnoDB ROW_FORMAT = DYNAMIC"),
        ));
    }
    count_the_rest(&mut findings, old.len(), "of an old type");
    Ok(or_well(findings, || {
        Finding::ok(format!("{}, all InnoDB with dynamic rows and {COLLATION}", count_of(all, "table")))
    }))
}

/// Tables with a column of another collation.
async fn wrong_collations(known: &Database, all: u64) -> Result<Vec<Finding>> {
    let wrong = sql::other_collations(&known.server, &known.database).await?;
    // Where all are alike nothing is mixed, and a site that was taken over may stay so.
    let mixed = (wrong.len() as u64) < all / 2 || wrong.iter().any(|(_, one)| *one != wrong[0].1);
    let mut findings = Vec::new();
    for (table, collation) in wrong.iter().take(SHOWN) {
        let found = format!("{} has columns in {collation}, not {COLLATION}", strip_controls(table));
        findings.push(match mixed {
            true => Finding::failed(found, FIX_COLLATION),
            false => Finding::warning(found, FIX_COLLATION),
        });
    }
    count_the_rest(&mut findings, wrong.len(), "in another collation");
    Ok(findings)
}

fn alter_statement(look: &Look<'_>, known: &Database, table: &str, how: &str) -> String {
    if table.chars().any(char::is_control) {
        return "SHOW TABLES, and drop the table whose name has control characters".to_owned();
    }
    let (database, table) = (quote::quote_name(&known.database), quote::quote_name(table));
    by_client(look, &format!("ALTER TABLE {database}.{table} {how}"))
}

fn count_the_rest(findings: &mut Vec<Finding>, all: usize, what: &str) {
    if let Some(rest @ 1..) = all.checked_sub(SHOWN) {
        findings.push(Finding::failed(
            format!("{rest} more {what}"),
            "camcops-provision doctor database.tables   # again, once these are fixed",
        ));
    }
}

pub(crate) async fn check_strict(look: &Look<'_>) -> Result<Vec<Finding>> {
    let known = look.database().await?;
    let row: Option<(bool, String)> =
        known.server.row("SELECT @@GLOBAL.innodb_strict_mode, @@GLOBAL.innodb_default_row_format").await?;
    let (strict, format) = row.context("the server does not report innodb_strict_mode")?;
    let mut findings = Vec::new();
    if !strict {
        findings.push(Finding::warning(
            "innodb_strict_mode is off",
            format!(
                "{}   # and remove innodb_strict_mode from the server's configuration",
                by_client(look, "SET GLOBAL innodb_strict_mode = ON")
            ),
        ));
    }
    if !format.eq_ignore_ascii_case("dynamic") {
        findings.push(Finding::failed(
            format!("new tables get the row format {format}"),
            format!(
                "{}   # and remove innodb_default_row_format from the server's configuration",
                by_client(look, "SET GLOBAL innodb_default_row_format = dynamic")
            ),
        ));
    }
    Ok(or_well(findings, || Finding::ok("strict mode is on, and new tables get dynamic rows")))
}

pub(crate) fn check_index(look: &Look<'_>) -> Result<Finding> {
    let host = &look.site.host;
    let ended = look
        .site
        .drivers
        .application()?
        .command(host, "camcops_server")?
        .args(["check_index", "--show_all_bad", "--config", &look.site.layout.config])
        .end()?;
    if ended.status.success() {
        return Ok(Finding::ok("complete, without duplicates"));
    }
    let lines: Vec<String> = ended.complaint.lines().map(strip_controls).collect();
    let says_bad = lines.iter().any(|line| line.contains("index is bad"));
    if !says_bad {
        check_success(&ended, "check_index", "fix the cause and run again")?;
    }
    let errors = lines.iter().filter(|line| line.contains(":ERROR:"));
    let wrong = errors.filter(|line| !line.contains("index is bad")).count();
    Ok(Finding::failed(
        format!("{} missing or wrong", count_of(wrong, "line")),
        format!("camcops-provision run -- reindex --config {}", look.site.layout.config),
    ))
}

pub(crate) async fn check_accounts(look: &Look<'_>) -> Result<Vec<Finding>> {
    let known = look.database().await?;
    if known.server.power == Power::Application {
        return Ok(vec![Finding::not_applicable("only an administrator of the server can see its accounts")]);
    }
    // A role has no host.
    let weak: Vec<(String, String)> = known
        .server
        .rows(
            "SELECT User, Host FROM mysql.user WHERE Host <> '' \
             AND (User = '' OR (User = 'root' AND Host NOT IN ('localhost', '127.0.0.1', '::1')) \
             OR (authentication_string = '' AND User NOT IN ('mariadb.sys', 'mysql.sys', 'mysql.session', 'mysql.infoschema') \
             AND plugin IN ('', 'mysql_native_password', 'caching_sha2_password', 'sha256_password', 'ed25519'))) \
             ORDER BY User, Host",
        )
        .await?;
    let findings: Vec<Finding> = weak
        .iter()
        .map(|(user, host)| {
            let found = match user.is_empty() {
                true => format!("anybody can log in from {host} without a user name"),
                false if user == "root" => format!("{user} can log in from {host}"),
                false => format!("{user} can log in from {host} without a password"),
            };
            let account = format!("{}@{}", quote::quote_name(user), quote::quote_name(host));
            Finding::warning(found, by_client(look, &format!("DROP USER {account}")))
        })
        .collect();
    Ok(match findings.is_empty() {
        true => vec![Finding::ok("every account has a name and a password; root logs in from this machine only")],
        false => findings,
    })
}

pub(crate) async fn check_grants(look: &Look<'_>) -> Result<Vec<Finding>> {
    let pending = look.pending(|planned| matches!(planned.change.resource, Resource::SqlAccount(_))).await?;
    Ok(mended_by_install(pending, "each account has the privileges that it needs, and no more"))
}

pub(crate) async fn check_schema(look: &Look<'_>) -> Result<Vec<Finding>> {
    let pending = look.pending(|planned| matches!(planned.change.resource, Resource::Tables(_))).await?;
    Ok(mended_by_install(pending, "the tables are at the revision of the release"))
}
