//! Texts, addresses and numbers that only some values are allowed for.

use anyhow::{Context, Result, anyhow, bail, ensure};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Checksum};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use toml_edit::Value;

use super::value::{Setting, Whole, checked_text, one_line};

checked_text! {
    /// An absolute path of a file; for some keys a pattern of files.
    AbsolutePath, allowed "an absolute path", |path| {
        // The text is not shown: people put passwords where the name of a file belongs.
        ensure!(path.starts_with('/'), "is not an absolute path");
        ensure!(!path.ends_with('/'), "names a directory, not a file");
    }
}

impl AbsolutePath {
    /// The path.
    pub(crate) fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

checked_text! {
    /// A host name or an IP address.
    Host, allowed "a host name or an IP address", |host| {
        // Nor here: in an address there may be a user and a password.
        ensure!(
            host.parse::<IpAddr>().is_ok() || is_host_name(host),
            "is neither a host name nor an IP address"
        );
    }
}

impl Host {
    /// The IP address, unless this is a name.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// Whether this is the name of the machine itself.
    pub(crate) fn is_localhost(&self) -> bool {
        self.0.eq_ignore_ascii_case("localhost")
    }

    /// Whether this is the machine itself, by name or by address.
    pub(crate) fn is_loopback(&self) -> bool {
        self.ip().map_or_else(|| self.is_localhost(), |ip| ip.is_loopback())
    }
}

pub(super) fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name that ends in a number is a mistyped address.
    let ends_in_number = |last: &str| last.bytes().all(|b| b.is_ascii_digit());
    host.len() <= 253 && host.split('.').all(is_label) && !host.rsplit('.').next().is_some_and(ends_in_number)
}

checked_text! {
    /// The name of a database of MySQL or MariaDB.
    DatabaseName, allowed "up to 64 of A-Z a-z 0-9 _", |name| {
        const OWN: [&str; 4] = ["mysql", "sys", "information_schema", "performance_schema"];
        let is_own = OWN.iter().any(|own| name.eq_ignore_ascii_case(own));
        ensure!(!is_own, "{name:?} belongs to the database server itself");
        check_word(name, 64, "_")?;
    }
}

checked_text! {
    /// An account of MySQL or MariaDB.
    DatabaseUser, allowed "up to 32 of A-Z a-z 0-9 _, but not root", |name| {
        ensure!(!name.eq_ignore_ascii_case("root"), "root is the administrator of the database server");
        check_word(name, 32, "_")?;
    }
}

checked_text! {
    /// When something is done, for the manager's own clock.
    Schedule, allowed "a calendar of systemd such as daily or *-*-* 02:30, or never", |when| {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || " *-:,./~+_".contains(c);
        let is_time = !when.trim().is_empty() && when.len() <= 100 && when.chars().all(is_fine);
        ensure!(is_time, "{when:?} is not a valid schedule");
    }
}

impl Schedule {
    /// When; nothing for never.
    pub(crate) fn given(&self) -> Option<&str> {
        Some(self.as_str()).filter(|when| *when != "never")
    }
}

/// A recipient ends with a checksum, so that a mistyped one is none.
fn is_of_age(recipient: &str) -> bool {
    let checked = CheckedHrpstring::new::<Long>(recipient);
    let hrp = checked.map(|checked| checked.hrp().to_string());
    // Those of its plugins have a name of their own behind that.
    hrp.is_ok_and(|hrp| hrp == "age" || hrp.starts_with("age1"))
}

/// The code of Bech32 for texts of any length: recipients are longer than an address of money.
enum Long {}

impl Checksum for Long {
    type MidstateRepr = u32;
    const CODE_LENGTH: usize = 4096;
    const CHECKSUM_LENGTH: usize = Bech32::CHECKSUM_LENGTH;
    const GENERATOR_SH: [u32; 5] = Bech32::GENERATOR_SH;
    const TARGET_RESIDUE: u32 = Bech32::TARGET_RESIDUE;
}

checked_text! {
    /// Who can read what age encrypts.
    Recipient, allowed "a recipient of age, age1..., or a public key of SSH", |recipient| {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || " +/=@._-".contains(c);
        let is_of_ssh = || ["ssh-ed25519 ", "ssh-rsa "].iter().any(|one| recipient.starts_with(one)) && recipient.chars().all(is_fine);
        // A private key may stand there by mistake: it is not repeated.
        ensure!(is_of_age(recipient) || is_of_ssh(), "is not a recipient of age");
    }
}

checked_text! {
    /// Where an account of MySQL or MariaDB comes from.
    ClientHost, allowed "a host name, an IP address, or one with % for any part", |host| {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || ".:-_%/".contains(c);
        ensure!(host.len() <= 60 && host.chars().all(is_fine), "{host:?} is not a host that an account can log in from");
    }
}

checked_text! {
    /// A user of CamCOPS.
    UserName, allowed "up to 191 of A-Z a-z 0-9 , _ - { }, but not system", |name| {
        ensure!(name != "system", "system is CamCOPS itself");
        check_word(name, 191, ",_-{}")?;
    }
}

checked_text! {
    /// A vhost of RabbitMQ.
    VirtualHost, allowed "\"/\" or up to 128 of A-Z a-z 0-9 . _ -", |name| {
        if name != "/" {
            check_word(name, 128, "._-")?;
        }
    }
}

checked_text! {
    /// The group of operators: people, not the accounts that services run as.
    OperatorGroup, allowed "a group of people, up to 32 of a-z 0-9 _ -, first a letter", |name| {
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
        let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        ensure!(begins && name.len() <= 32 && name.chars().all(is_fine), "{name:?} is not the name of a group");
        let of_services = ["root", "www-data", "apache", "camcops", "nogroup", "nobody", "mysql", "rabbitmq"];
        ensure!(!of_services.contains(&name), "{name:?} is not a group of people");
    }
}

checked_text! {
    /// An account of RabbitMQ or of the monitor's pages.
    AccountName, allowed "up to 64 of A-Z a-z 0-9 . _ -", |name| { check_word(name, 64, "._-")?; }
}

pub(super) fn check_word(text: &str, longest: usize, also: &str) -> Result<()> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
    ensure!(!text.is_empty(), "is empty");
    if let Some(other) = text.chars().find(|c| !is_fine(*c)) {
        bail!("contains {other:?}");
    }
    check_length(text, longest)
}

checked_text! {
    /// The path that CamCOPS has on the web server.
    WebPath, allowed "\"/\", or /name or /name/name of A-Z a-z 0-9 . _ ~ - without a slash at the end", |path| {
        let segments = path.strip_prefix('/').context("does not begin with a slash")?;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
        for segment in segments.split('/').filter(|_| path != "/") {
            ensure!(!segment.is_empty(), "has an empty segment or a slash at the end");
            ensure!(![".", ".."].contains(&segment), "contains a segment . or ..");
            ensure!(segment.bytes().all(is_plain), "has a character that needs escaping in a URL");
        }
        ensure!(
            segments.split('/').next() != Some(".well-known"),
            "/.well-known is reserved, for certificate challenges among others"
        );
    }
}

impl WebPath {
    /// Whether CamCOPS has the whole host for itself.
    pub(crate) fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// What to put before a path of CamCOPS: empty, or like `/camcops`.
    pub(crate) fn prefix(&self) -> &str {
        if self.is_root() { "" } else { &self.0 }
    }
}

fn is_country(code: &str) -> bool {
    code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase())
}

checked_text! {
    /// A country by its two letters.
    Country, allowed "two capital letters", |code| {
        ensure!(is_country(code), "{code:?} is not a country code of two letters");
    }
}

checked_text! {
    /// A language and its country, like `en_GB`.
    Language, allowed "language_COUNTRY", |code| {
        let fits = |(language, country): (&str, &str)| {
            (2..=3).contains(&language.len())
                && language.bytes().all(|b| b.is_ascii_lowercase())
                && is_country(country)
        };
        ensure!(code.split_once('_').is_some_and(fits), "{code:?} is not a language with its country");
    }
}

checked_text! {
    /// A time zone by its name in the time zone database.
    Timezone, allowed "a time zone of tzdata such as Area/City or UTC", |zone| {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_+-".contains(&b);
        let parts = zone.split('/').collect::<Vec<_>>();
        let is_part = |part: &&str| !part.is_empty() && part.bytes().all(is_plain);
        let is_zone = (1..=3).contains(&parts.len()) && zone.len() <= 64 && parts.iter().all(is_part);
        ensure!(is_zone, "{zone:?} does not look like a time zone");
    }
}

/// Whether this can follow `https://`.
fn is_address(rest: &str, is_plain: impl Fn(char) -> bool) -> bool {
    rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') && rest.chars().all(is_plain)
}

checked_text! {
    /// An address of a page on the web.
    WebAddress, allowed "an address that begins with https:// or http://", |address| {
        let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
        let has_user = |rest: &str| rest.split('/').next().is_some_and(|host| host.contains('@'));
        ensure!(!rest.is_some_and(has_user), "contains a user name, but every page of CamCOPS shows this address");
        let is_plain = |c: char| c.is_ascii_graphic() && !"\"'<>\\^`{|}".contains(c);
        ensure!(rest.is_some_and(|rest| is_address(rest, is_plain)), "is not the address of a web page");
    }
}

checked_text! {
    /// Where an ACME authority has its directory.
    AcmeServer, allowed "an address that begins with https://", |address| {
        let rest = address.strip_prefix("https://");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/?=&%[]".contains(c);
        // Nor here: somebody's login may stand in it.
        ensure!(rest.is_some_and(|rest| is_address(rest, is_plain)), "is not the address of an ACME directory");
    }
}

checked_text! {
    /// Where mail goes to.
    Mailbox, allowed "an address for mail", |address| {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(c);
        let is_mailbox = |(who, host): (&str, &str)| {
            !who.is_empty() && !who.starts_with('-') && who.chars().all(is_fine) && is_host_name(host)
        };
        ensure!(address.split_once('@').is_some_and(is_mailbox), "{address:?} is not an address for mail");
    }
}

checked_text! {
    /// The name of an organization in a certificate.
    Organization, allowed "up to 64 characters", |text| { check_length(text, 64)?; }
}

checked_text! {
    /// A region or a town in a certificate.
    Locality, allowed "up to 128 characters", |text| { check_length(text, 128)?; }
}

fn check_length(text: &str, longest: usize) -> Result<()> {
    let count = text.chars().count();
    ensure!(count <= longest, "has {count} characters");
    Ok(())
}

/// Where the backend listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bind {
    /// The instance's unix socket.
    Socket,
    /// A port, of the loopback interface unless CamCOPS is to serve HTTPS itself.
    Tcp(SocketAddr),
}

impl Bind {
    /// The address, if other machines can reach it.
    pub(crate) fn open_address(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) if !address.ip().is_loopback() => Some(address),
            _ => None,
        }
    }
}

impl Setting for Bind {
    fn allowed() -> String {
        "\"socket\", or an address and a port from 1024 up".into()
    }

    fn read(value: &Value) -> Result<Self> {
        let text = one_line(value)?;
        if text == "socket" {
            return Ok(Self::Socket);
        }
        let address: SocketAddr = text.parse().map_err(|_| anyhow!("{text:?} is not an address and a port"))?;
        ensure!(address.port() >= 1024, "the backend does not run as root, so it cannot open port {}", address.port());
        Ok(Self::Tcp(address))
    }

    fn write(&self) -> Value {
        match self {
            Self::Socket => "socket".into(),
            Self::Tcp(address) => address.to_string().into(),
        }
    }
}

/// An address that the web site is served on; displayed as Apache wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Every address.
    Any,
    /// One address.
    Address(IpAddr),
}

impl Setting for Listen {
    fn allowed() -> String {
        "\"*\" or an IP address".into()
    }

    fn read(value: &Value) -> Result<Self> {
        match one_line(value)? {
            "*" => Ok(Self::Any),
            text => text.parse().map(Self::Address).map_err(|_| anyhow!("{text:?} is not an IP address")),
        }
    }

    fn write(&self) -> Value {
        match self {
            Self::Any => "*".into(),
            Self::Address(address) => address.to_string().into(),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// An address or a network in CIDR form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: Option<u8>,
}

impl Setting for Network {
    fn allowed() -> String {
        "an IP address or a network like 10.0.0.0/8".into()
    }

    fn read(value: &Value) -> Result<Self> {
        let text = one_line(value)?;
        let wrong = || anyhow!("{text:?} is neither an IP address nor a network");
        let Some((address, prefix)) = text.split_once('/') else {
            let address = text.parse().map_err(|_| wrong())?;
            return Ok(Self { address, prefix: None });
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        // Digits only: the parser of numbers would also take "+8".
        let digits = prefix.bytes().all(|b| b.is_ascii_digit());
        let length: u8 = prefix.parse().map_err(|_| wrong())?;
        let first = first_address(address, length).filter(|_| digits).ok_or_else(wrong)?;
        ensure!(first == address, "{text} is a host address; the network is {first}/{length}");
        Ok(Self { address, prefix: Some(length) })
    }

    fn write(&self) -> Value {
        self.to_string().into()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.address),
            None => self.address.fmt(f),
        }
    }
}

fn first_address(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let host_bits = 32_u32.checked_sub(prefix.into())?;
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            Some(IpAddr::V4((v4.to_bits() & mask).into()))
        }
        IpAddr::V6(v6) => {
            let host_bits = 128_u32.checked_sub(prefix.into())?;
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            Some(IpAddr::V6((v6.to_bits() & mask).into()))
        }
    }
}

/// The memory in kB at which a worker process is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryCap(u32);

impl MemoryCap {
    const LEAST: u32 = 500_000;

    /// The cap in kB.
    pub(crate) fn kilobytes(self) -> u32 {
        self.0
    }
}

impl Setting for MemoryCap {
    fn allowed() -> String {
        format!("{} or more", Self::LEAST)
    }

    fn read(value: &Value) -> Result<Self> {
        let cap = Whole::<0, { u32::MAX }>::read(value)?.get();
        ensure!(
            cap >= Self::LEAST,
            "{cap} would restart a worker process after every task, because each one needs about 390 MB"
        );
        Ok(Self(cap))
    }

    fn write(&self) -> Value {
        i64::from(self.0).into()
    }
}
