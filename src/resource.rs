//! The one abstraction: a resource is a name for something on the machine, and its state is absent or a small map of
//! facets. What differs between the wanted and the observed facets is a change; everything the program does is a fold
//! over changes.

use crate::base::text::encode_hex;
use anyhow::Result;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Everything that this program can make. The list is closed: it is the scope of the product.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum Resource {
    /// A group of this machine.
    Group(String),
    /// An account of this machine.
    #[serde(rename = "account")]
    User(String),
    /// A directory, by path.
    Directory(String),
    /// A regular file, by path.
    File(String),
    /// A symbolic link, by path.
    #[serde(rename = "link")]
    Symlink(String),
    /// A package of the distribution.
    Package(String),
    /// A release of the application, by its identifier.
    Release(String),
    /// A database, by name.
    Schema(String),
    /// An account of the database server, as `user@host`.
    SqlAccount(String),
    /// A vhost of the message broker.
    Vhost(String),
    /// An account of the message broker.
    BrokerAccount(String),
    /// The application's tables in a database, by the database's name.
    Tables(String),
    /// A superuser of the application.
    Superuser(String),
    /// A certificate that certbot has from an authority, by certbot's name for it.
    AcmeCertificate(String),
    /// A rule of the firewall, as `ufw PROFILE` or `firewalld SERVICE`.
    FirewallRule(String),
    /// A running service, by the name that the service manager has for it.
    Service(String),
    /// Something that a newer version of this program made.
    #[serde(untagged)]
    Unknown {
        /// What kind of thing it is.
        kind: String,
        /// What it is called.
        name: String,
    },
}

impl Resource {
    /// Whether it can only be seen and made on a running machine, not in a staged tree.
    pub(crate) fn needs_live_machine(&self) -> bool {
        !self.is_file()
    }

    /// Whether it stands in the file system, whatever it is there.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Resource::Directory(_) | Resource::File(_) | Resource::Symlink(_))
    }

    /// Whether it takes its time to answer, and so is asked while the rest is looked at. The workers' answer to a ping
    /// also proves the broker's account.
    pub(crate) fn is_looked_at_ahead(&self) -> bool {
        matches!(self, Resource::Service(_) | Resource::BrokerAccount(_))
    }

    /// Whether it goes with the data of an instance, if somebody wants that.
    pub(crate) fn can_be_purged(&self) -> bool {
        // Each kind is named: a new one has to be thought of.
        match self {
            Resource::Schema(_)
            | Resource::SqlAccount(_)
            | Resource::Vhost(_)
            | Resource::BrokerAccount(_)
            | Resource::AcmeCertificate(_) => true,
            Resource::Group(_)
            | Resource::User(_)
            | Resource::Directory(_)
            | Resource::File(_)
            | Resource::Symlink(_)
            | Resource::Package(_)
            | Resource::Release(_)
            | Resource::Tables(_)
            | Resource::Superuser(_)
            | Resource::FirewallRule(_)
            | Resource::Service(_)
            | Resource::Unknown { .. } => false,
        }
    }

    /// Whether it comes and goes with the database.
    pub(crate) fn is_in_the_database(&self) -> bool {
        matches!(self, Resource::Tables(_) | Resource::Superuser(_))
    }

    /// The kind as it is called in messages.
    pub(crate) fn noun(&self) -> &str {
        match self {
            Resource::Schema(_) => "database",
            Resource::SqlAccount(_) => "database account",
            Resource::Vhost(_) => "RabbitMQ vhost",
            Resource::BrokerAccount(_) => "RabbitMQ account",
            Resource::AcmeCertificate(_) => "certbot certificate",
            Resource::FirewallRule(_) => "firewall rule",
            _ => self.kind(),
        }
    }

    /// The kind in one word, as the journal and JSON documents have it.
    pub fn kind(&self) -> &str {
        match self {
            Resource::Group(_) => "group",
            Resource::User(_) => "account",
            Resource::Directory(_) => "directory",
            Resource::File(_) => "file",
            Resource::Symlink(_) => "link",
            Resource::Package(_) => "package",
            Resource::Release(_) => "release",
            Resource::Schema(_) => "schema",
            Resource::SqlAccount(_) => "sql_account",
            Resource::Vhost(_) => "vhost",
            Resource::BrokerAccount(_) => "broker_account",
            Resource::Tables(_) => "tables",
            Resource::Superuser(_) => "superuser",
            Resource::AcmeCertificate(_) => "acme_certificate",
            Resource::FirewallRule(_) => "firewall_rule",
            Resource::Service(_) => "service",
            Resource::Unknown { kind, .. } => kind,
        }
    }

    /// The name: a path, or the name of an account.
    pub fn name(&self) -> &str {
        match self {
            Resource::Group(name)
            | Resource::User(name)
            | Resource::Directory(name)
            | Resource::File(name)
            | Resource::Symlink(name)
            | Resource::Package(name)
            | Resource::Release(name)
            | Resource::Schema(name)
            | Resource::SqlAccount(name)
            | Resource::Vhost(name)
            | Resource::BrokerAccount(name)
            | Resource::Tables(name)
            | Resource::Superuser(name)
            | Resource::AcmeCertificate(name)
            | Resource::FirewallRule(name)
            | Resource::Service(name)
            | Resource::Unknown { name, .. } => name,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Tables(database) => write!(f, "tables in database {database}"),
            _ => write!(f, "{} {}", self.noun(), self.name()),
        }
    }
}

/// How an enforcement ended when nothing failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Enforced {
    /// The machine has the wanted state.
    Done,
    /// It was left as it is, and why: a directory that is not empty.
    LeftAlone(String),
}

/// Absent, or present with facets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not there.
    #[default]
    Absent,
    /// There, with these properties.
    Present(Facets),
}

impl State {
    pub(crate) fn facets(&self) -> Option<&Facets> {
        match self {
            State::Absent => None,
            State::Present(facets) => Some(facets),
        }
    }

    pub(crate) fn get(&self, facet: &str) -> Option<&FacetValue> {
        self.facets().and_then(|facets| facets.get(facet))
    }

    /// One facet, if it is there, as text.
    pub(crate) fn text(&self, facet: &str) -> Option<&str> {
        self.facets().and_then(|facets| facets.text(facet))
    }

    /// The content of a file, if there is one.
    pub(crate) fn content(&self) -> Option<&Content> {
        self.facets().and_then(Facets::content)
    }

    /// The names of the wanted facets that the observed state has otherwise; `presence` if one is absent and the other not.
    pub(crate) fn differences(&self, observed: &State) -> Vec<&str> {
        match (self, observed) {
            (State::Absent, State::Absent) => Vec::new(),
            (State::Present(wanted), State::Present(found)) => {
                wanted.iter().filter(|(facet, value)| found.get(facet) != Some(value)).map(|(facet, _)| facet).collect()
            }
            _ => vec!["presence"],
        }
    }

    /// Whether the observed state has everything that is wanted.
    pub(crate) fn is_met_by(&self, observed: &State) -> bool {
        self.differences(observed).is_empty()
    }
}

/// A small ordered map from the name of a property to its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Facets(BTreeMap<String, FacetValue>);

impl Facets {
    pub(crate) fn new() -> Facets {
        Facets::default()
    }

    pub(crate) fn with(mut self, facet: &str, value: impl Into<FacetValue>) -> Facets {
        self.0.insert(facet.to_owned(), value.into());
        self
    }

    pub(crate) fn get(&self, facet: &str) -> Option<&FacetValue> {
        self.0.get(facet)
    }

    /// One of them, as text.
    pub fn text(&self, facet: &str) -> Option<&str> {
        match self.get(facet) {
            Some(FacetValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The content, where they are a file's.
    pub fn content(&self) -> Option<&Content> {
        match self.get("content") {
            Some(FacetValue::Content(content)) => Some(content),
            _ => None,
        }
    }

    /// All of them, in order of name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &FacetValue)> {
        self.0.iter().map(|(facet, value)| (facet.as_str(), value))
    }
}

/// The value of a facet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum FacetValue {
    /// A word.
    Text(String),
    /// A set of words, compared both ways.
    Set(BTreeSet<String>),
    /// The content of a file.
    Content(Content),
}

impl From<&str> for FacetValue {
    fn from(text: &str) -> FacetValue {
        FacetValue::Text(text.to_owned())
    }
}

impl From<String> for FacetValue {
    fn from(text: String) -> FacetValue {
        FacetValue::Text(text)
    }
}

impl From<BTreeSet<String>> for FacetValue {
    fn from(words: BTreeSet<String>) -> FacetValue {
        FacetValue::Set(words)
    }
}

impl From<Content> for FacetValue {
    fn from(content: Content) -> FacetValue {
        FacetValue::Content(content)
    }
}

impl fmt::Display for FacetValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FacetValue::Text(text) => f.write_str(text),
            FacetValue::Set(words) if words.is_empty() => f.write_str("none"),
            FacetValue::Set(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                f.write_str(&words.join(", "))
            }
            FacetValue::Content(content) => match content.bytes() {
                Some(bytes) => write!(f, "{} bytes", bytes.len()),
                None => f.write_str("other content"),
            },
        }
    }
}

/// The content of a file. It prints, compares and is written to the journal as its SHA-256: the bytes may be a secret.
#[derive(Clone, Default)]
pub struct Content {
    bytes: Option<Arc<[u8]>>,
    digest: OnceLock<String>,
}

impl Content {
    /// These bytes.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Content {
        Content { bytes: Some(bytes.into()), digest: OnceLock::new() }
    }

    /// Bytes that are elsewhere, known by their SHA-256.
    pub(crate) fn known_by(digest: String) -> Content {
        Content { bytes: None, digest: OnceLock::from(digest) }
    }

    /// The bytes, unless only the digest is known.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.as_deref()
    }

    /// SHA-256 in lower-case hexadecimal digits.
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| {
            let bytes = self.bytes.as_deref().unwrap_or_default();
            encode_hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
        })
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Content) -> bool {
        match (&self.bytes, &other.bytes) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.digest() == other.digest(),
        }
    }
}

impl Eq for Content {}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content(sha256 {})", self.digest())
    }
}

#[derive(Serialize, Deserialize)]
struct Digest {
    sha256: String,
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Digest { sha256: self.digest().to_owned() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        Digest::deserialize(deserializer).map(|digest| Content::known_by(digest.sha256))
    }
}

/// How much of a file's content may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shown {
    /// All of it.
    #[default]
    Whole,
    /// All but the values of its secret keys.
    Masked,
    /// Nothing: the content is the secret.
    Nothing,
}

/// The parts of an installation, by which `--only` and `--skip` choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// Packages of the distribution.
    Packages,
    /// The dedicated account, if account.user asks for one.
    Accounts,
    /// The directories of the site.
    Directories,
    /// Passwords and the cookie secret.
    Secrets,
    /// The TLS certificate and its key.
    Certificate,
    /// The configuration of CamCOPS.
    Configuration,
    /// The commands in /usr/bin and their manual pages.
    Launchers,
    /// CamCOPS itself, in its Python environment.
    Application,
    /// The database, its account and the server's settings.
    Database,
    /// The message broker's vhost, account and settings.
    Broker,
    /// The application's tables.
    Tables,
    /// The application's first superuser.
    Superuser,
    /// systemd units or supervisor programs, with their logs.
    Services,
    /// The web server's site.
    Web,
    /// Port descriptions for ufw and firewalld.
    Firewall,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}").to_lowercase();
        f.write_str(&name)
    }
}

/// What an installation should have, and the line that `plan` explains it with.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which resource.
    pub resource: Resource,
    /// The facets that matter.
    pub state: State,
    /// Why.
    pub because: String,
    /// Which part of the installation it belongs to.
    pub(crate) part: Part,
    /// How much of its content may be shown.
    pub(crate) shown: Shown,
    /// What the settings alone would write, where it is merged with the administrator's changes: the next merge starts from it.
    pub(crate) base: Option<Content>,
    /// What this one has read when it started: when one of these changes, this one changes too.
    pub(crate) inputs: Vec<Resource>,
}

/// A resource with a state before and a state after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) resource: Resource,
    pub(crate) before: State,
    pub(crate) after: State,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_is_compared() {
        let wanted = State::Present(Facets::new().with("mode", "0640"));
        let found = State::Present(Facets::new().with("mode", "0644").with("owner", "root:root"));
        assert_eq!(wanted.differences(&found), ["mode"]);
    }

    #[test]
    fn content_never_prints_its_bytes() {
        let content = Content::new(*b"Sesame");
        let printed = format!("{content:?} {}", serde_json::to_string(&content).unwrap());
        assert!(!printed.contains("Sesame"), "{printed}");
        assert_eq!(content, Content::known_by(content.digest().to_owned()));
        assert_ne!(content, Content::new(*b"sesame"));
    }

    #[test]
    fn a_set_is_compared_both_ways() {
        let set = |words: &[&str]| {
            let words = words.iter().map(|w| (*w).to_owned()).collect();
            State::Present(Facets(BTreeMap::from([("g".into(), FacetValue::Set(words))])))
        };
        assert!(set(&["a"]).is_met_by(&set(&["a"])));
        assert!(!set(&["a"]).is_met_by(&set(&["a", "b"])));
        assert!(!set(&["a", "b"]).is_met_by(&set(&["a"])));
    }

    #[test]
    fn a_resource_of_a_newer_version_keeps_its_name() {
        let text = r#"{"resource":{"kind":"moon","name":"x"},"before":"absent","after":"absent"}"#;
        let change: Change = serde_json::from_str(text).unwrap();
        assert_eq!(change.resource, Resource::Unknown { kind: "moon".into(), name: "x".into() });
        assert_eq!(serde_json::to_string(&change).unwrap(), text);
    }
}
