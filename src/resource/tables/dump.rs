//! A dump of the tables before they are changed, by the client of the same family as the server, checked.

use super::Application;
use crate::error::Exit;
use crate::facts::DatabaseFamily;
use crate::host::Host;
use crate::probe::Address;
use crate::probe::database::{Encryption, Endpoint, Login};
use crate::resource::sql::{Known, quote};
use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use time::OffsetDateTime;
use time::macros::format_description;
use zeroize::Zeroizing;

/// Where the dumps go: only root can enter.
pub const DIRECTORY: &str = "/var/backups/camcops";

/// Dumps a database and checks the dump; gives the file, whose name ends with the revision and what comes next.
pub async fn make(
    host: &Host,
    known: &Known,
    application: &Application,
    tables: &[String],
    revision: &str,
    next: &str,
) -> Result<String> {
    let database = &known.database;
    let directory = &application.dumps;
    if host.look(directory)?.is_none() {
        host.make_directory(directory, Some((0, 0)), 0o700)?;
    }
    room(known, directory).await?;
    let family = known.server.identity().await?.family;
    let program = program(host, family)?;
    let now = OffsetDateTime::now_utc().format(format_description!(
        "[year][month][day]T[hour][minute][second]Z"
    ))?;
    let path = format!("{directory}/{database}-{now}-{revision}-before-{next}.sql");
    let unfinished = format!("{path}.unfinished");
    let login = format!("/run/camcops-provision-dump-{database}.cnf");
    (application.tell)(&format!("dumping the database {database} to {path}"));
    host.put_file(&unfinished, b"", Some((0, 0)), 0o600)?;
    let options = options(&known.server.endpoint, family)?;
    let authority = authority(host, &known.server.endpoint, database)?;
    host.put_file(&login, options.as_bytes(), Some((0, 0)), 0o600)?;
    let mut child = host.child(program).bare().args([
        &format!("--defaults-file={login}"),
        "--single-transaction",
        "--quick",
        "--hex-blob",
        "--default-character-set=utf8mb4",
        "--max-allowed-packet=1G",
        &format!("--result-file={unfinished}"),
    ]);
    if let Some(authority) = &authority {
        child = child.args([format!("--ssl-ca={authority}")]);
    }
    if family == DatabaseFamily::Mysql {
        // Both want privileges on the whole server, and neither is needed here.
        child = child.args(["--no-tablespaces", "--set-gtid-purged=OFF"]);
    }
    let made = child.args(["--", database]).run();
    host.remove_file(&login)?;
    if let Some(authority) = &authority {
        host.remove_file(authority)?;
    }
    let checked = made.and_then(|_| check(&unfinished, tables));
    if let Err(why) = checked {
        host.remove_file(&unfinished)?;
        return Err(why.context(format!(
            "the tables hold data and could not be dumped, so they stay as they are (database {database})"
        )));
    }
    host.rename(&unfinished, &path)?;
    Ok(path)
}

/// Leads to the dump from before an upgrade, until that has come to its end.
fn way_back(application: &Application, database: &str) -> String {
    format!("{}/{database}.before-upgrade", application.dumps)
}

/// The dump from before an upgrade that was cut, if it is still there.
pub fn of_cut_upgrade(
    host: &Host,
    application: &Application,
    database: &str,
) -> Result<Option<String>> {
    let Some(dump) = host.read_link(&way_back(application, database))? else {
        return Ok(None);
    };
    Ok(host.look(&dump)?.map(|_| dump))
}

/// Remembers which dump leads back.
pub fn begin_upgrade(
    host: &Host,
    application: &Application,
    database: &str,
    dump: &str,
) -> Result<()> {
    host.put_link(&way_back(application, database), dump)
}

/// The upgrade has come to its end, and nobody needs to go back.
pub fn end_upgrade(host: &Host, application: &Application, database: &str) -> Result<()> {
    let link = way_back(application, database);
    match host.look(&link)? {
        Some(_) => host.remove_file(&link),
        None => Ok(()),
    }
}

/// The client of the same family: the other one's dumps may not go back in.
fn program(host: &Host, family: DatabaseFamily) -> Result<&'static str> {
    let (programs, vendor): (&[&str], _) = match family {
        DatabaseFamily::Mariadb => (&["mariadb-dump", "mysqldump"], "MariaDB"),
        DatabaseFamily::Mysql => (&["mysqldump"], "MySQL"),
    };
    for program in programs {
        let Ok(said) = host.child(program).args(["--version"]).run() else {
            continue;
        };
        if said.contains("MariaDB") == (family == DatabaseFamily::Mariadb) {
            return Ok(program);
        }
    }
    Err(Exit::Unreachable.because(format!(
        "the tables hold data, and {} of {vendor} is not on this machine to dump them first; install {vendor}'s client programs",
        programs[0]
    )))
}

/// Refuses to fill the disk: a dump is about as large as what it dumps.
async fn room(known: &Known, directory: &str) -> Result<()> {
    let size: Option<(Option<u64>,)> = known
        .server
        .row(&format!(
            "SELECT CAST(SUM(DATA_LENGTH) AS UNSIGNED) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {}",
            quote::text(&known.database)
        ))
        .await?;
    let needed = size.and_then(|(size,)| size).unwrap_or(0) / 5 * 6;
    let there = statvfs(directory).with_context(|| format!("can't measure {directory}"))?;
    let free = there.blocks_available() * there.fragment_size();
    if free < needed {
        return Err(Exit::Io.because(format!(
            "a dump of the database {} needs about {} MiB, and {directory} has {} MiB left; make room there, or make it a link to where there is room",
            known.database,
            needed >> 20,
            free >> 20
        )));
    }
    Ok(())
}

/// How we are logged in ourselves, as the clients read it.
pub(super) fn options(endpoint: &Endpoint, family: DatabaseFamily) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::from("[client]\n"));
    let _ = writeln!(text, "user = {}", &*quoted(&endpoint.user));
    if let Login::Password(password) = &endpoint.login {
        let _ = writeln!(text, "password = {}", &*quoted(password.reveal()));
    }
    match &endpoint.address {
        Address::Socket(path) => {
            let _ = writeln!(text, "socket = {}", &*quoted(path));
        }
        Address::Tcp { host, port, .. } => {
            let _ = writeln!(
                text,
                "host = {}\nport = {port}\nprotocol = tcp",
                &*quoted(host)
            );
        }
    }
    let socket = matches!(endpoint.address, Address::Socket(_));
    let tls = match (family, &endpoint.encryption) {
        (DatabaseFamily::Mysql, _) if socket => "",
        // Newer ones would check the server's certificate even here.
        (DatabaseFamily::Mariadb, Encryption::Off) => "skip-ssl\n",
        (DatabaseFamily::Mariadb, Encryption::Required) => "ssl\nskip-ssl-verify-server-cert\n",
        (DatabaseFamily::Mariadb, Encryption::Verify(_)) => "ssl\nssl-verify-server-cert\n",
        (DatabaseFamily::Mysql, Encryption::Off) => "ssl-mode = DISABLED\nget-server-public-key\n",
        (DatabaseFamily::Mysql, Encryption::Required) => "ssl-mode = REQUIRED\n",
        (DatabaseFamily::Mysql, Encryption::Verify(_)) => "ssl-mode = VERIFY_IDENTITY\n",
    };
    text.push_str(tls);
    Ok(text)
}

fn quoted(value: &str) -> Zeroizing<String> {
    let escaped = value.replace('\\', r"\\").replace('"', "\\\"");
    Zeroizing::new(format!("\"{escaped}\""))
}

/// The authority that the server's certificate is checked against, as a file of its own.
pub(super) fn authority(
    host: &Host,
    endpoint: &Endpoint,
    database: &str,
) -> Result<Option<String>> {
    let Encryption::Verify(authority) = &endpoint.encryption else {
        return Ok(None);
    };
    let path = format!("/run/camcops-provision-dump-{database}.pem");
    host.put_file(&path, &authority.pem, Some((0, 0)), 0o600)?;
    Ok(Some(path))
}

/// Whether a dump is whole: every table is in it, and it says itself that it has come to its end.
fn check(path: &str, tables: &[String]) -> Result<()> {
    let file = File::open(path)?;
    let mut reader = BufReader::with_capacity(1 << 20, &file);
    let (mut found, mut last) = (0, Vec::new());
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.starts_with(b"CREATE TABLE `") {
            found += 1;
        }
        if line.len() > 1 {
            last = line;
        }
    }
    if found < tables.len() {
        bail!("the dump has {found} of {} tables", tables.len());
    }
    if !last.starts_with(b"-- Dump completed") {
        bail!("the dump does not come to its end");
    }
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_dump_that_is_cut_is_refused() {
        let whole = "CREATE TABLE `a` (\n);\nCREATE TABLE `b` (\n);\n-- Dump completed on 2026\n";
        let checked = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            check(file.path().to_str().unwrap(), &["a".into(), "b".into()])
        };
        assert!(checked(whole).is_ok());
        let end = whole.find("-- Dump").unwrap();
        assert!(checked(&whole[..end]).is_err());
        assert!(checked(&whole[18..]).is_err());
        assert!(checked("").is_err());
    }

    #[test]
    fn every_password_stands_in_quotes() {
        assert_eq!(*quoted(r#"a"b\c # d"#), r#""a\"b\\c # d""#);
    }
}
