//! The accounts of the database that can only read: that of `database.readonly_user`, and `database.readonly_accounts`.

use super::Database;
use super::problem::nearest_name;
use super::types::{AbsolutePath, ClientHost, DatabaseUser};
use super::value::{Setting, wrong_type};
use anyhow::{Context, Result, bail};
use toml_edit::{InlineTable, Value};

const FIELDS: [&str; 4] = ["user", "host", "password_file", "everything"];
/// The key of further accounts.
pub(crate) const READONLY_ACCOUNTS: &str = "database.readonly_accounts";

/// One entry of `database.readonly_accounts`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadonlyAccount {
    pub(crate) user: DatabaseUser,
    pub(crate) host: Option<ClientHost>,
    pub(crate) password_file: Option<AbsolutePath>,
    pub(crate) everything: bool,
}

impl Setting for ReadonlyAccount {
    fn allowed() -> String {
        "a table { user = NAME }, and host, password_file, everything = true if wanted".into()
    }

    fn read(value: &Value) -> Result<Self> {
        let table = value.as_inline_table().ok_or_else(|| wrong_type(value, "a table such as { user = \"anne\" }"))?;
        if let Some((other, _)) = table.iter().find(|(name, _)| !FIELDS.contains(name)) {
            if other.contains("password") {
                bail!(
                    "{other}: passwords are not settings: write it to a file that only root can read, and name the file in password_file"
                );
            }
            let nearest = nearest_name(other, FIELDS).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            bail!("{other}: unknown key{nearest}");
        }
        let user = read_field(table, "user")?.context("user is missing")?;
        Ok(Self {
            user,
            host: read_field(table, "host")?,
            password_file: read_field(table, "password_file")?,
            everything: read_field(table, "everything")?.unwrap_or_default(),
        })
    }

    fn write(&self) -> Value {
        let mut table = InlineTable::new();
        table.insert("user", self.user.write());
        if let Some(host) = &self.host {
            table.insert("host", host.write());
        }
        if let Some(file) = &self.password_file {
            table.insert("password_file", file.write());
        }
        if self.everything {
            table.insert("everything", true.into());
        }
        table.into()
    }
}

fn read_field<T: Setting>(table: &InlineTable, name: &str) -> Result<Option<T>> {
    let Some(value) = table.get(name) else {
        return Ok(None);
    };
    T::read(value).map(Some).with_context(|| name.to_owned())
}

/// An account that can only read, however it is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReaderAccount<'a> {
    pub(crate) user: &'a str,
    /// Where it logs in from, if not from where the application does.
    pub(crate) host: Option<&'a str>,
    pub(crate) password_file: Option<&'a AbsolutePath>,
    /// Whether it reads the audit trail and the users' secrets too.
    pub(crate) everything: bool,
    /// Whether it is that of `database.readonly_user`.
    pub(crate) is_first: bool,
}

impl ReaderAccount<'_> {
    /// The setting that names it.
    pub(crate) fn setting(&self) -> &'static str {
        if self.is_first { "database.readonly_user" } else { READONLY_ACCOUNTS }
    }

    /// The setting that names its password's file.
    pub(crate) fn password_setting(&self) -> &'static str {
        if self.is_first { "database.readonly_password_file" } else { READONLY_ACCOUNTS }
    }
}

impl Database {
    /// Every account that can only read, that of `readonly_user` first.
    pub(crate) fn readers(&self) -> impl Iterator<Item = ReaderAccount<'_>> {
        let first = self.readonly_user.as_ref().map(|user| ReaderAccount {
            user: user.as_str(),
            host: self.readonly_host.as_ref().map(ClientHost::as_str),
            password_file: self.readonly_password_file.as_ref(),
            everything: self.readonly_everything,
            is_first: true,
        });
        let more = self.readonly_accounts.iter().map(|account| ReaderAccount {
            user: account.user.as_str(),
            host: account.host.as_ref().map(ClientHost::as_str),
            password_file: account.password_file.as_ref(),
            everything: account.everything,
            is_first: false,
        });
        first.into_iter().chain(more)
    }

    /// One of them by its name.
    pub(crate) fn reader(&self, user: &str) -> Option<ReaderAccount<'_>> {
        self.readers().find(|reader| reader.user == user)
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::{Settings, Sources};

    fn read(text: &str) -> Result<Vec<String>, String> {
        let files = vec![("/etc/camcops/provision.toml".into(), text.to_owned())];
        let resolved = Settings::resolve(&Sources { files, ..Sources::default() });
        let database = resolved.map_err(|problems| problems.to_string())?.settings.database;
        let tell = |one: super::ReaderAccount<'_>| {
            format!("{} {} {}", one.user, one.host.unwrap_or("-"), if one.everything { "all" } else { "some" })
        };
        Ok(database.readers().map(tell).collect())
    }

    #[test]
    fn accounts_are_one_list_however_they_are_set() {
        let expected = Ok(vec!["reports - some".into(), "anne 10.0.0.% all".into(), "bob - some".into()]);
        let inline = "[database]\nreadonly_user = 'reports'\nreadonly_accounts = [\n  { user = 'anne', host = '10.0.0.%', everything = true },\n  { user = 'bob' }]\n";
        assert_eq!(read(inline), expected);
        let tables = "[database]\nreadonly_user = 'reports'\n[[database.readonly_accounts]]\nuser = 'anne'\nhost = '10.0.0.%'\neverything = true\n[[database.readonly_accounts]]\nuser = 'bob'\n";
        assert_eq!(read(tables), expected);
        for (list, words) in [
            ("[{ host = 'x' }]", "entry 1: user is missing"),
            ("[{ user = 'anne', password = 'x' }]", "passwords are not settings"),
            ("[{ user = 'anne', everthing = true }]", "did you mean everything?"),
            ("[{ user = 'anne' }, { user = 'anne', host = 'x' }]", "names anne twice"),
            ("[{ user = 'reports' }]", "is also database.readonly_user"),
            ("[{ user = 'writer' }]", "the application's own account"),
        ] {
            let text = format!("[database]\nuser = 'writer'\nreadonly_user = 'reports'\nreadonly_accounts = {list}\n");
            let why = read(&text).unwrap_err();
            assert!(why.contains(words), "{list}: {why}");
        }
    }
}
