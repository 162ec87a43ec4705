//! What an account that only reads may read: the data, and not who looked at it or how people log in.
//!
//! A server can't take one table out of a grant on a database, so each table has a grant of its own, and of the users some
//! columns. A new release may have more tables: they are granted as they come.

use super::grants::{read_grants, replace_grants};
use super::{Database, quote, tables_of};
use crate::base::terminal::count_of;
use anyhow::Result;
use std::collections::BTreeSet;

/// The value of the facet `reads` where that is so.
pub(crate) const ALL_BUT_SECRETS: &str = "all but audit trail, sessions and secrets";

/// Tables about logging in and about who looked at what have such a name; of these only some are for readers.
const ABOUT_SECURITY: &str = "_security_";
const FOR_READERS: [&str; 4] = ["_security_devices", "_security_groups", "_security_ip_use", "_security_user_group"];
/// It has the addresses of other databases, passwords included.
const RECIPIENTS: &str = "_export_recipients";
const USERS: &str = "_security_users";
/// Of the users: what reports need. Hashes of passwords and secrets of authenticators are in other columns, and a new
/// release may have more of these.
const OF_USERS: [&str; 12] = [
    "auto_generated",
    "email",
    "fullname",
    "id",
    "language",
    "last_login_at_utc",
    "mfa_method",
    "must_change_password",
    "single_patient_pk",
    "superuser",
    "upload_group_id",
    "username",
];

fn is_for_readers(table: &str) -> bool {
    table != RECIPIENTS && (!table.starts_with(ABOUT_SECURITY) || FOR_READERS.contains(&table))
}

/// The grants, for the tables that there are now.
async fn wanted_grants(known: &Database) -> Result<BTreeSet<String>> {
    let (server, database) = (&known.server, &known.database);
    let mut grants = BTreeSet::new();
    for table in tables_of(server, database).await? {
        if is_for_readers(&table) {
            grants.insert(format!("SELECT ON {}", quote::quote_table(database, &table)));
        }
    }
    let columns = server
        .texts(&format!(
            "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} ORDER BY COLUMN_NAME",
            quote::quote_text(database),
            quote::quote_text(USERS)
        ))
        .await?;
    for column in columns.iter().filter(|column| OF_USERS.contains(&column.as_str())) {
        let scope = quote::quote_table(database, USERS);
        grants.insert(format!("SELECT ({}) ON {scope}", quote::quote_name(column)));
    }
    Ok(grants)
}

/// What of it an account has: the value of the facet, and whether there is anything to read at all.
pub(super) async fn observe_reading(known: &Database, has: &BTreeSet<String>) -> Result<(String, bool)> {
    let wanted = wanted_grants(known).await?;
    let (missing, surplus) = (wanted.difference(has).count(), has.difference(&wanted).count());
    let reads = match (missing, surplus) {
        (0, 0) => ALL_BUT_SECRETS.to_owned(),
        (0, _) => format!("too much by {}", count_of(surplus, "grant")),
        (_, 0) => format!("too little by {}", count_of(missing, "grant")),
        _ => format!("too little by {} and too much by {}", count_of(missing, "grant"), count_of(surplus, "grant")),
    };
    Ok((reads, !wanted.is_empty()))
}

/// Grants what is missing, and revokes what is too much.
pub(super) async fn set_reading(known: &Database, quoted: &str, user: &str, from: &str) -> Result<()> {
    let wanted = wanted_grants(known).await?;
    // MySQL takes what is granted on a table, too, when everything on its database is revoked.
    for _ in 0..2 {
        let has = read_grants(&known.server, user, from).await?;
        replace_grants(&known.server, quoted, &wanted, &has).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_about_logging_in_is_for_readers() {
        for table in ["patient", "phq9", "_task_index", "_security_groups"] {
            assert!(is_for_readers(table), "{table}");
        }
        for table in [
            "_security_audit",
            "_security_users",
            "_security_webviewer_sessions",
            "_security_login_failures",
            "_security_something_new",
            "_export_recipients",
        ] {
            assert!(!is_for_readers(table), "{table}");
        }
        for column in ["hashedpw", "mfa_secret_key", "hotp_counter", "phone_number"] {
            assert!(!OF_USERS.contains(&column));
        }
    }
}
