//! Two passwords of one account at the same time, while one takes the place of the other: nobody is turned away then.
//!
//! MariaDB takes one of several ways in since 10.4, MySQL has a second password since 8.0.14.

use super::{Database, DatabaseAccount, DatabaseServer, quote};
use crate::base::error::Exit;
use crate::base::secret::Secret;
use crate::host::processes;
use crate::site::facts::DatabaseFamily;
use anyhow::{Context, Result};
use mysql_async::Row;
use ring::digest;
use std::time::Duration;
use tokio::time::sleep;
use zeroize::Zeroizing;

/// The value of the facet `passwords` where there is no second one.
pub(crate) const ONE: &str = "one";
/// Its value where either of two is taken.
pub(crate) const TWO: &str = "two";

/// A server that checks how good a password is refuses a digest with one of these.
pub(crate) const WANTS_TO_SEE_IT: [u16; 2] = [1290, 1819];
/// An older server knows no second password: it has no such table or column, or does not understand the words.
const OLDER: [u16; 3] = [1146, 1054, 1064];
/// Whoever has just read the former password has logged in with it by then.
const GRACE: Duration = Duration::from_secs(5);

/// How many passwords an account takes.
pub(crate) async fn passwords_taken(server: &DatabaseServer, user: &str, from: &str) -> Result<&'static str> {
    let of = format!("WHERE User = {} AND Host = {}", quote::quote_text(user), quote::quote_text(from));
    let question = match server.identity().await?.family {
        DatabaseFamily::Mariadb => {
            format!("SELECT COALESCE(JSON_EXTRACT(Priv, '$.auth_or[*].plugin'), '') FROM mysql.global_priv {of}")
        }
        DatabaseFamily::Mysql => format!(
            "SELECT IF(JSON_CONTAINS_PATH(COALESCE(User_attributes, '{{}}'), 'one', '$.additional_password'), 'password', '') FROM mysql.user {of}"
        ),
    };
    let rows: Option<Vec<(String,)>> = server.rows_if_any(&question, &OLDER).await?;
    let more = rows.and_then(|rows| rows.into_iter().next());
    Ok(match more {
        Some((more,)) if more.contains("password") => TWO,
        _ => ONE,
    })
}

/// Lets an account in by its new password, and still by the former one, whatever it takes now.
pub(crate) async fn accept_both(
    known: &Database,
    account: &DatabaseAccount,
    quoted: &str,
    accepted: Option<&str>,
) -> Result<()> {
    let server = &known.server;
    let (super::WayIn::Password(new), Some(former)) = (&account.way_in, &account.former) else {
        return Ok(());
    };
    let done = match server.identity().await?.family {
        DatabaseFamily::Mariadb => {
            let by = |one: &str, other: &str| {
                Zeroizing::new(format!(
                    "ALTER USER {quoted} IDENTIFIED VIA mysql_native_password USING {one} OR mysql_native_password USING {other}"
                ))
            };
            let digest = |password| quote::quote_text(&native_digest(password));
            let by_digest = by(&digest(former), &digest(new));
            let plain =
                |password: &Secret| Zeroizing::new(format!("PASSWORD({})", quote::quote_text(password.reveal())));
            let mut refusals = OLDER.to_vec();
            refusals.extend(WANTS_TO_SEE_IT);
            let done: Option<Vec<Row>> = server.rows_if_any(&by_digest, &refusals).await?;
            match done {
                Some(_) => true,
                None => {
                    let by_word = by(&plain(former), &plain(new));
                    let done: Option<Vec<Row>> = server.rows_if_any(&by_word, &OLDER).await?;
                    done.is_some()
                }
            }
        }
        DatabaseFamily::Mysql => {
            let by = |password: &Secret, rest: &str| {
                Zeroizing::new(format!(
                    "ALTER USER {quoted} IDENTIFIED BY {}{rest}",
                    quote::quote_text(password.reveal())
                ))
            };
            // What a cut run left as the second one is not the one to keep.
            if accepted == Some(TWO) {
                server.change(&by(former, "")).await?;
            }
            let both = by(new, " RETAIN CURRENT PASSWORD");
            let done: Option<Vec<Row>> = server.rows_if_any(&both, &OLDER).await?;
            done.is_some()
        }
    };
    match done {
        true => Ok(()),
        false => Err(Exit::Failed.because(format!(
            "the database server {} is too old to accept two passwords at once (MariaDB 10.4 and MySQL 8.0.14 can), so nothing was changed: stop the services, remove the file with the password, and run `camcops-provision install`",
            server.endpoint.address
        ))),
    }
}

/// Waits until whoever has read the former password has logged in with it.
pub(crate) async fn let_readers_in(known: &Database) -> Result<()> {
    let changed =
        processes::changed_time(&known.option_file).with_context(|| format!("can't look at {}", known.option_file))?;
    let age = changed.and_then(|changed| changed.elapsed().ok());
    sleep(GRACE.saturating_sub(age.unwrap_or_default())).await;
    Ok(())
}

/// What the server itself keeps of a password for `mysql_native_password`.
pub(crate) fn native_digest(password: &Secret) -> String {
    let sha1 = |bytes: &[u8]| digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let twice = sha1(sha1(password.reveal().as_bytes()).as_ref());
    format!("*{}", crate::base::text::encode_hex(twice.as_ref()).to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_of_the_servers() {
        // SELECT PASSWORD('pw') on a real one.
        let digest = native_digest(&Secret::new("pw".into()));
        assert_eq!(digest, "*D821809F681A40A6E379B50D0463EFAE20BDD122");
    }
}
