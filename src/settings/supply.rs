//! Where CamCOPS and its packages come from, and by which way.

use anyhow::{Context, Result, bail, ensure};
use std::net::IpAddr;

use toml_edit::Value;

use super::types::{Network, is_host_name};
use super::value::{Setting, checked_text, one_line};

checked_text! {
    /// An absolute path of a directory, or of what may be one.
    Directory, allowed "an absolute path", |path| {
        ensure!(path.starts_with('/'), "is not an absolute path");
    }
}

/// The Python that CamCOPS runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Python {
    /// The newest that will do.
    Auto,
    Minor(u8),
    /// 3.MINOR by the path of its interpreter.
    Interpreter(u8, String),
}

impl Python {
    /// The versions that CamCOPS runs on, newest first.
    pub(crate) const MINORS: [u8; 5] = [14, 13, 12, 11, 10];
}

impl Setting for Python {
    fn allowed() -> String {
        "\"auto\", \"3.14\", \"3.13\", \"3.12\", \"3.11\", \"3.10\", or the absolute path of such an interpreter like /opt/python/bin/python3.12".into()
    }

    fn read(value: &Value) -> Result<Self> {
        let text = one_line(value)?;
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let minor_of = |version: &str| {
            let minor = Self::MINORS.into_iter();
            minor.clone().find(|minor| version == format!("3.{minor}"))
        };
        if let Some(minor) = minor_of(text) {
            return Ok(Self::Minor(minor));
        }
        let name = text.rsplit('/').next().unwrap_or_default();
        match name.strip_prefix("python").and_then(minor_of) {
            Some(minor) if text.starts_with('/') => Ok(Self::Interpreter(minor, text.to_owned())),
            _ => bail!("{text:?} is not one of these"),
        }
    }

    fn write(&self) -> Value {
        match self {
            Self::Auto => "auto".into(),
            Self::Minor(minor) => format!("3.{minor}").into(),
            Self::Interpreter(_, path) => path.into(),
        }
    }
}

checked_text! {
    /// The address of a proxy, without a login.
    ProxyAddress, allowed "http://HOST:PORT or https://HOST:PORT", |address| {
        bare_address(address, "network.proxy_login_file")?;
        let host = address.trim_end_matches('/').split_once("://").map_or("", |(_, host)| host);
        ensure!(!host.contains('/'), "contains a path, but a proxy has none");
    }
}

checked_text! {
    /// What is reached without a proxy.
    ProxyException, allowed "a host name, .domain, an IP address or a network like 10.0.0.0/8", |text| {
        let name = text.strip_prefix('.').unwrap_or(text);
        let is_network = || Network::read(&text.into()).is_ok();
        ensure!(is_host_name(name) || text.parse::<IpAddr>().is_ok() || is_network(), "{text:?} is not one of these");
    }
}

checked_text! {
    /// The address of a Python package index, without a login.
    IndexAddress, allowed "an address that begins with https:// or http://", |address| {
        bare_address(address, "network.pip_login_file")?;
    }
}

/// A web address that says nobody's password.
fn bare_address(address: &str, login: &str) -> Result<()> {
    let rest = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))
        .context("does not begin with https:// or http://")?;
    let host = rest.split('/').next().unwrap_or_default();
    // The text is not shown: what stands before the @ may be a password.
    ensure!(
        !host.contains('@'),
        "has a login, but passwords are not settings: write USER:PASSWORD to a file that only root can read and name it in {login}"
    );
    let is_plain = |c: char| c.is_ascii_graphic() && !"\"'<>\\^`{|}@".contains(c);
    ensure!(!host.is_empty() && rest.chars().all(is_plain), "is not an address");
    Ok(())
}
