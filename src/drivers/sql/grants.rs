//! What accounts may do: a set of pieces of SQL, from the privilege to what it is on, compared both ways.

use super::account::split_name;
use super::server::DatabaseServer;
use super::{Database, quote};
use crate::base::error::Exit;
use crate::site::facts::DatabaseFamily;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};

/// What CamCOPS and its migrations do with their own database. It makes no views, routines, triggers or events.
pub(crate) const APPLICATION: [&str; 11] = [
    "ALTER",
    "CREATE",
    "CREATE TEMPORARY TABLES",
    "DELETE",
    "DROP",
    "INDEX",
    "INSERT",
    "LOCK TABLES",
    "REFERENCES",
    "SELECT",
    "UPDATE",
];
/// What an account that only reads does.
const OF_A_READER: [&str; 1] = ["SELECT"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccountPurpose {
    Application,
    /// Reports and the like.
    Reading,
}

impl AccountPurpose {
    /// What it needs to do.
    pub(crate) fn privileges(self) -> &'static [&'static str] {
        match self {
            AccountPurpose::Application => &APPLICATION,
            AccountPurpose::Reading => &OF_A_READER,
        }
    }

    /// Exactly the grants that it needs on its database.
    pub(crate) fn grants(self, database: &str) -> BTreeSet<String> {
        let scope = on_database(&quote::quote_pattern(database));
        let privileges = self.privileges().iter();
        privileges.map(|each| format!("{each} ON {scope}")).collect()
    }
}

/// The value of the facet `grants` where an account that others look after has all that it needs.
pub(crate) const ENOUGH: &str = "all that are needed";

/// Everything in a database, or in those of a pattern.
pub(crate) fn on_database(pattern: &str) -> String {
    format!("{}.*", quote::quote_name(pattern))
}

/// Grants what is missing, then revokes what is too much.
pub(crate) async fn replace_grants(
    server: &DatabaseServer,
    quoted: &str,
    wanted: &BTreeSet<String>,
    has: &BTreeSet<String>,
) -> Result<()> {
    let missing = wanted.difference(has);
    for (scope, privileges) in by_scope(missing) {
        server.change(&format!("GRANT {privileges} ON {scope} TO {quoted}")).await?;
    }
    let (roles, surplus): (Vec<&String>, Vec<&String>) =
        has.difference(wanted).partition(|grant| !grant.contains(" ON "));
    for role in roles {
        server.change(&format!("REVOKE {role} FROM {quoted}")).await?;
    }
    for (scope, privileges) in by_scope(surplus.into_iter()) {
        server.change(&format!("REVOKE {privileges} ON {scope} FROM {quoted}")).await?;
    }
    Ok(())
}

fn by_scope<'a>(grants: impl Iterator<Item = &'a String>) -> BTreeMap<&'a str, String> {
    let mut scopes: BTreeMap<&str, String> = BTreeMap::new();
    for grant in grants {
        let Some((privilege, scope)) = grant.split_once(" ON ") else {
            continue;
        };
        let privileges = scopes.entry(scope).or_default();
        if !privileges.is_empty() {
            privileges.push_str(", ");
        }
        privileges.push_str(privilege);
    }
    scopes
}

/// Everything that an account has been granted, on whatever, roles among it.
pub(crate) async fn read_grants(server: &DatabaseServer, user: &str, from: &str) -> Result<BTreeSet<String>> {
    let (quoted_user, quoted_host) = (quote::quote_text(user), quote::quote_text(from));
    let grantee = quote::quote_text(&format!("'{user}'@'{from}'"));
    // Database, table and column: empty where the privilege is on all of them.
    let rows: Vec<(String, String, String, String, String)> = server
        .rows(&format!(
            "SELECT '', '', '', PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.USER_PRIVILEGES WHERE GRANTEE = {grantee} \
             UNION ALL SELECT TABLE_SCHEMA, '', '', PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.SCHEMA_PRIVILEGES WHERE GRANTEE = {grantee} \
             UNION ALL SELECT TABLE_SCHEMA, TABLE_NAME, '', PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.TABLE_PRIVILEGES WHERE GRANTEE = {grantee} \
             UNION ALL SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.COLUMN_PRIVILEGES WHERE GRANTEE = {grantee}"
        ))
        .await?;
    let mut grants = BTreeSet::new();
    for (database, table, column, privilege, grantable) in rows {
        let scope = match (database.as_str(), table.as_str()) {
            ("", _) => "*.*".to_owned(),
            (pattern, "") => on_database(pattern),
            (database, table) => quote::quote_table(database, table),
        };
        let column = match column.as_str() {
            "" => String::new(),
            column => format!(" ({})", quote::quote_name(column)),
        };
        if grantable == "YES" {
            grants.insert(format!("GRANT OPTION ON {scope}"));
        }
        if privilege != "USAGE" {
            grants.insert(format!("{privilege}{column} ON {scope}"));
        }
    }
    let roles = match server.identity().await?.family {
        DatabaseFamily::Mariadb => {
            format!("SELECT Role, '' FROM mysql.roles_mapping WHERE User = {quoted_user} AND Host = {quoted_host}")
        }
        DatabaseFamily::Mysql => format!(
            "SELECT FROM_USER, FROM_HOST FROM mysql.role_edges WHERE TO_USER = {quoted_user} AND TO_HOST = {quoted_host}"
        ),
    };
    // Refused or not there: then this server has no roles that we could see or revoke.
    const NOT_TO_BE_SEEN: [u16; 3] = [1044, 1142, 1146];
    let roles: Option<Vec<(String, String)>> = server.rows_if_any(&roles, &NOT_TO_BE_SEEN).await?;
    for (role, host) in roles.unwrap_or_default() {
        grants.insert(match host.as_str() {
            "" => quote::quote_name(&role),
            host => quote::quote_account(&role, host),
        });
    }
    Ok(grants)
}

/// What the application lacks on its database, as the server tells it itself: what its roles may do is among it.
pub(crate) async fn lacking_grants(known: &Database) -> Result<Vec<&'static str>> {
    let lines = known.server.texts("SHOW GRANTS").await?;
    let mut has = BTreeSet::new();
    for (pattern, privileges) in lines.iter().filter_map(|line| parse_grant(line)) {
        if quote::pattern_includes(&pattern, &known.database) {
            has.extend(privileges);
        }
    }
    let needed = AccountPurpose::Application.privileges().iter().copied();
    Ok(match has.contains("ALL PRIVILEGES") {
        true => Vec::new(),
        false => needed.filter(|needed| !has.contains(needed)).collect(),
    })
}

/// The pattern of databases and the privileges in a line of `SHOW GRANTS`, if it is not about less than a database.
fn parse_grant(line: &str) -> Option<(String, Vec<&str>)> {
    let (privileges, rest) = line.strip_prefix("GRANT ")?.split_once(" ON ")?;
    let (scope, _) = rest.split_once(" TO ")?;
    let pattern = match scope.strip_suffix(".*")? {
        "*" => "%".to_owned(),
        quoted => quoted.strip_prefix('`')?.strip_suffix('`')?.replace("``", "`"),
    };
    Some((pattern, privileges.split(", ").collect()))
}

/// What the administrator may do with the database, and whether it may pass that on. Its roles are not asked.
async fn read_powers(known: &Database) -> Result<BTreeMap<String, bool>> {
    let identity = known.server.identity().await?;
    let (user, from) = split_name(&identity.account)?;
    let grantee = quote::quote_text(&format!("'{user}'@'{from}'"));
    let rows: Vec<(String, String, String)> = known
        .server
        .rows(&format!(
            "SELECT '%', PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.USER_PRIVILEGES WHERE GRANTEE = {grantee} \
             UNION ALL SELECT TABLE_SCHEMA, PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.SCHEMA_PRIVILEGES WHERE GRANTEE = {grantee}"
        ))
        .await?;
    let mut powers = BTreeMap::new();
    for (pattern, privilege, grantable) in rows {
        if quote::pattern_includes(&pattern, &known.database) {
            *powers.entry(privilege).or_default() |= grantable == "YES";
        }
    }
    Ok(powers)
}

/// Refuses an administrator who could only do a part of it.
pub(crate) async fn refuse_weak_administrator(known: &Database) -> Result<()> {
    let server = &known.server;
    let role: Option<(Option<String>,)> = server.row("SELECT CURRENT_ROLE()").await?;
    if matches!(role, Some((Some(role),)) if role != "NONE") {
        return Ok(());
    }
    let has = read_powers(known).await?;
    let mut lacks: Vec<&str> = Vec::new();
    lacks.extend((!has.contains_key("CREATE USER")).then_some("CREATE USER"));
    let needed = AccountPurpose::Application.privileges().iter().copied();
    lacks.extend(needed.filter(|needed| has.get(*needed) != Some(&true)));
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Exit::NoPermission.because(format!(
        "database {}: the administrator {} lacks privileges that are needed (CREATE USER, and those of the application WITH GRANT OPTION): {}",
        server.endpoint.address,
        server.endpoint.user,
        lacks.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_on_the_one_database() {
        let grants = AccountPurpose::Reading.grants("camcops_two");
        assert_eq!(grants, BTreeSet::from([r"SELECT ON `camcops\_two`.*".to_owned()]));
        let grants = AccountPurpose::Application.grants("camcops");
        let all = by_scope(grants.iter());
        assert!(all["`camcops`.*"].starts_with("ALTER, CREATE, "), "{all:?}");
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn lines_of_both_families_are_read() {
        let read = |line| parse_grant(line).map(|(pattern, privileges)| (pattern, privileges.join("+")));
        assert_eq!(
            read(r"GRANT SELECT, LOCK TABLES ON `made\_there`.* TO `a`@`%`"),
            Some((r"made\_there".into(), "SELECT+LOCK TABLES".into()))
        );
        assert_eq!(
            read("GRANT ALL PRIVILEGES ON *.* TO 'a'@'%' WITH GRANT OPTION"),
            Some(("%".into(), "ALL PRIVILEGES".into()))
        );
        assert_eq!(read("GRANT SELECT ON `db`.`table` TO `a`@`%`"), None);
        assert_eq!(read("GRANT `builders` TO `a`@`%`"), None);
    }
}
