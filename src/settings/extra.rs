//! `[[services.extra]]`: services of the site's own, beside those of CamCOPS.

use anyhow::{Context, Result, anyhow, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Display;

use toml_edit::{InlineTable, TableLike, Value};

use super::choices::Service;
use super::problem::{Problem, nearest_name};
use super::supply::Directory;
use super::types::{AbsolutePath, WebPath, check_word};
use super::value::{PortNumber, Setting, Whole, checked_text, one_line, wrong_type};

/// The key.
pub(super) const EXTRA: &str = "services.extra";
/// What already means something else where names of services stand.
const TAKEN: [&str; 10] =
    ["all", "apache", "backup", "broker", "database", "exports", "metrics", "prepare", "socket", "web"];

checked_text! {
    /// The name of a service, CamCOPS's or an extra one.
    ServiceName, allowed "a service: server, workers, scheduler, monitor, or the name of one of services.extra", |name| {
        check_slug(name)?;
    }
}

checked_text! {
    /// The name of an extra service.
    ExtraName, allowed "up to 24 of a-z 0-9 -, first a letter, that no other service has", |name| {
        let is_ours = Service::ALL.iter().any(|service| service.as_str() == name);
        ensure!(!is_ours && !TAKEN.contains(&name), "{name:?} is reserved");
        check_slug(name)?;
    }
}

fn check_slug(name: &str) -> Result<()> {
    let is_fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let is_slug = begins && name.len() <= 24 && !name.ends_with('-') && name.bytes().all(is_fine);
    ensure!(is_slug, "{name:?} is not a valid name");
    Ok(())
}

checked_text! {
    /// The account of an extra service.
    ServiceAccount, allowed "an account of this machine", |name| {
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        ensure!(begins, "{name:?} is not the name of an account");
        check_word(name, 32, "_-")?;
    }
}

/// A program and what it is given, word by word: no shell reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(Vec<String>);

impl Words {
    /// The program.
    pub(crate) fn program(&self) -> &str {
        // `read` refuses a list without one.
        self.0.first().map_or("", String::as_str)
    }

    /// What it is given.
    pub(crate) fn arguments(&self) -> &[String] {
        self.0.get(1..).unwrap_or_default()
    }
}

impl Setting for Words {
    fn allowed() -> String {
        "a list of words, the first an absolute path, or the name of a program of the release".into()
    }

    fn read(value: &Value) -> Result<Self> {
        let array = value.as_array().ok_or_else(|| wrong_type(value, "a list of words"))?;
        let words = array.iter().map(|word| one_line(word).map(str::to_owned));
        let words: Vec<String> = words.collect::<Result<_, _>>()?;
        let program = words.first().context("names no program")?;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._+-".contains(&b);
        ensure!(
            !program.is_empty() && program.bytes().all(is_plain),
            "{program:?} contains a character that is not allowed in the path of a program here"
        );
        match program.starts_with('/') || !program.contains('/') {
            true if !program.ends_with('/') && !program.starts_with(['-', '.', '+']) => Ok(Self(words)),
            _ => bail!("{program:?} is neither an absolute path nor a name"),
        }
    }

    fn write(&self) -> Value {
        toml_edit::Array::from_iter(&self.0).into()
    }
}

/// One field of an entry, as the documentation shows it.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it means.
    pub(crate) doc: &'static str,
    /// What is allowed.
    pub(crate) allowed: fn() -> String,
    /// An example value, in TOML.
    pub(crate) example: &'static str,
    /// What holds where it is not given; nothing where it must be.
    pub(crate) default: Option<&'static str>,
}

impl Field {
    fn problem(&self, what: impl Display) -> Problem {
        Problem { allowed: Some((self.allowed)()), example: Some(self.example.into()), ..Problem::new(self.name, what) }
    }
}

/// Makes the entry, and the table of its fields, from one list. A field without a default must be given.
macro_rules! fields {
    (
        $( $(#[doc = $doc:literal])+ $needed:ident: $needed_type:ty, example $needed_example:literal; )+
        optional
        $( $(#[doc = $other_doc:literal])+ $other:ident: $other_type:ty, example $example:literal, shown $shown:literal; )+
    ) => {
        /// One service of the site's own.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct ExtraService {
            $( $(#[doc = $doc])+ pub(crate) $needed: $needed_type, )+
            $( $(#[doc = $other_doc])+ pub(crate) $other: Option<$other_type>, )+
        }

        /// The fields of an entry, in the order of the documentation.
        pub(crate) const FIELDS: &[Field] = &[
            $(Field {
                name: stringify!($needed),
                doc: concat!($($doc),+).trim_ascii(),
                allowed: <$needed_type as Setting>::allowed,
                example: $needed_example,
                default: None,
            },)+
            $(Field {
                name: stringify!($other),
                doc: concat!($($other_doc),+).trim_ascii(),
                allowed: <$other_type as Setting>::allowed,
                example: $example,
                default: Some($shown),
            },)+
        ];

        fn read_fields(given: &BTreeMap<&str, &Value>, wrongs: &mut Vec<Problem>) -> Option<ExtraService> {
            $( let $needed: Option<$needed_type> = read_field(stringify!($needed), given, wrongs); )+
            $( let $other: Option<$other_type> = read_field(stringify!($other), given, wrongs); )+
            Some(ExtraService { $($needed: $needed?,)+ $($other,)+ })
        }

        impl ExtraService {
            fn written(&self) -> InlineTable {
                let mut table = InlineTable::new();
                $( table.insert(stringify!($needed), self.$needed.write()); )+
                $( if let Some(value) = &self.$other {
                    table.insert(stringify!($other), value.write());
                } )+
                table
            }
        }
    };
}

fields! {
    /// Its name, in commands, units, logs, and /etc/camcops/env.d/INSTANCE-NAME.env.
    name: ExtraName, example "\"listener\"";
    /// The program and its arguments, word by word, without a shell. A program without a path is one of the release.
    command: Words, example "[\"/usr/local/bin/listener\", \"--port\", \"9000\"]";
    optional
    /// The account that it runs as; root only if it is named here.
    user: ServiceAccount, example "\"listener\"", shown "the account of the services";
    /// The directory that it starts in and can write to.
    directory: Directory, example "\"/srv/listener\"", shown "/, and only temporary files can be written";
    /// The path of the web site that is passed to its port or socket; it receives the rest of the path. Its pages can see the cookies of CamCOPS.
    path: WebPath, example "\"/listener\"", shown "none";
    /// The port that it listens on, on 127.0.0.1.
    port: PortNumber, example "9000", shown "none";
    /// The unix socket that it listens on. The directory /run/camcops-NAME is created for the service of that name.
    socket: AbsolutePath, example "\"/run/camcops-listener/listener.socket\"", shown "none";
    /// Its memory limit under systemd, in MiB; beyond that it is restarted.
    memory_max_mb: Whole<16, 1_000_000>, example "512", shown "no limit";
}

impl ExtraService {
    /// Whether there is anything to connect to.
    pub(crate) fn listens(&self) -> bool {
        self.port.is_some() || self.socket.is_some()
    }
}

fn read_field<T: Setting>(name: &str, given: &BTreeMap<&str, &Value>, wrongs: &mut Vec<Problem>) -> Option<T> {
    let field = FIELDS.iter().find(|field| field.name == name)?;
    let Some(value) = given.get(name) else {
        if field.default.is_none() {
            wrongs.push(field.problem("is missing"));
        }
        return None;
    };
    match T::read(value) {
        Ok(value) => Some(value),
        Err(what) => {
            wrongs.push(field.problem(what));
            None
        }
    }
}

/// Reads one entry, or tells everything that is wrong with it; the key of each problem is the field.
pub(super) fn read_service(table: &dyn TableLike) -> Result<ExtraService, Vec<Problem>> {
    let mut wrongs = Vec::new();
    let mut given = BTreeMap::new();
    for (name, item) in table.iter() {
        let Some(field) = FIELDS.iter().find(|field| field.name == name) else {
            let nearest = nearest_name(name, FIELDS.iter().map(|field| field.name));
            wrongs.push(Problem { nearest: nearest.map(str::to_owned), ..Problem::new(name, "unknown key") });
            continue;
        };
        match item.as_value() {
            Some(value) => _ = given.insert(name, value),
            None => wrongs.push(field.problem("is a key, not a section")),
        }
    }
    let entry = read_fields(&given, &mut wrongs);
    if let Some(entry) = &entry {
        find_contradictions(entry, &mut wrongs);
    }
    match entry {
        Some(entry) if wrongs.is_empty() => Ok(entry),
        _ => Err(wrongs),
    }
}

fn find_contradictions(entry: &ExtraService, wrongs: &mut Vec<Problem>) {
    let mut refuse = |field: &str, what: &str| wrongs.push(Problem::new(field, what));
    if entry.port.is_some() && entry.socket.is_some() {
        refuse("socket", "is set together with port: use one of them");
    }
    if entry.path.is_some() && !entry.listens() {
        refuse("path", "needs a port or a socket to pass requests to");
    }
    // Apache, systemd and supervisor each have their own way with the rest.
    let is_plain = |path: &str| path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._+@-".contains(&b));
    let paths = [
        ("directory", entry.directory.as_ref().map(|path| path.as_str())),
        ("socket", entry.socket.as_ref().map(|path| path.as_str())),
    ];
    for (field, path) in paths {
        if path.is_some_and(|path| !is_plain(path)) {
            refuse(field, "may only have A-Z a-z 0-9 / . _ + @ -");
        }
    }
    let by_root = entry.user.as_ref().is_some_and(|user| user.as_str() == "root");
    if entry.port.is_some_and(|port| port.get() < 1024) && !by_root {
        refuse("port", "is below 1024, which only root may open");
    }
    if entry.path.as_ref().is_some_and(WebPath::is_root) {
        refuse("path", "is the path of the whole site");
    }
}

impl Setting for ExtraService {
    fn allowed() -> String {
        let names = |needed: bool| {
            let all = FIELDS.iter().filter(|field| field.default.is_none() == needed);
            all.map(|field| field.name).collect::<Vec<_>>().join(", ")
        };
        format!("a table [[services.extra]] with {}; {} if wanted", names(true), names(false))
    }

    fn read(value: &Value) -> Result<Self> {
        let table = value.as_inline_table().ok_or_else(|| wrong_type(value, "a table"))?;
        read_service(table).map_err(|wrongs| {
            let told: Vec<_> = wrongs.into_iter().map(|Problem { key, what, .. }| format!("{key}: {what}")).collect();
            anyhow!(told.join("; "))
        })
    }

    fn write(&self) -> Value {
        self.written().into()
    }
}
