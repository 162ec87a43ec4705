//! The way to the Python package index: proxies, logins, authorities, as variables for the children that need them and
//! for nobody else.

use crate::base::error::Exit;
use crate::base::text::encode_percent;
use crate::camcops_conf::Ini;
use crate::host::Host;
use crate::host::secrets::KeptSecret;
use crate::layout::COMBINED_AUTHORITIES;
use crate::settings::{AbsolutePath, Internet};
use anyhow::Result;

/// Where pip's own settings for the whole machine are.
const PIP_SETTINGS: [&str; 2] = ["/etc/pip.conf", "/etc/xdg/pip/pip.conf"];
/// Where the families of distributions keep the authorities that they trust.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// The variables that lead out of this network.
pub(in crate::drivers) fn proxy_variables(host: &Host, network: &Internet) -> Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
    let login = login_of(host, "network.proxy_login_file", &network.proxy_login_file)?;
    for (name, proxy) in [("http_proxy", &network.http_proxy), ("https_proxy", &network.https_proxy)] {
        match proxy {
            Some(proxy) => set(name, with_login(proxy.as_str(), login.as_deref())),
            // Who starts this program from behind a proxy has usually said so to the whole session.
            None => {
                if let Some(value) = inherited_variable(name) {
                    set(name, value);
                }
            }
        }
    }
    let direct: Vec<&str> = network.no_proxy.iter().map(|name| name.as_str()).collect();
    match direct.is_empty() {
        false => set("no_proxy", direct.join(",")),
        true => {
            if let Some(value) = inherited_variable("no_proxy") {
                set("no_proxy", value);
            }
        }
    }
    Ok(variables)
}

/// The variables that lead to the index.
pub(super) fn pip_environment(host: &Host, network: &Internet) -> Result<Vec<(String, String)>> {
    let mut variables = proxy_variables(host, network)?;
    let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
    let pip = pip_settings(host)?;
    let pip = |key| pip.as_ref().and_then(|file| file.get("global", key));
    if let Some(bundle) = authority_bundle(host, network, pip("cert"))? {
        set("PIP_CERT", bundle.clone());
        set("SSL_CERT_FILE", bundle);
    }
    let index = match &network.pip_index_url {
        Some(url) => {
            let login = login_of(host, "network.pip_login_file", &network.pip_login_file)?;
            Some(with_login(url.as_str(), login.as_deref()))
        }
        None => pip("index-url"),
    };
    if let Some(index) = index {
        if let Some(rest) = index.strip_prefix("http://") {
            // What comes without encryption is held against its hash like everything else.
            let place = rest.split('/').next().unwrap_or_default();
            let host = place.rsplit('@').next().unwrap_or_default();
            set("PIP_TRUSTED_HOST", host.to_owned());
        }
        set("PIP_INDEX_URL", index.clone());
        set("UV_DEFAULT_INDEX", index);
    }
    Ok(variables)
}

fn inherited_variable(name: &str) -> Option<String> {
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    value(name).or_else(|| value(&name.to_uppercase()))
}

fn pip_settings(host: &Host) -> Result<Option<Ini>> {
    for path in PIP_SETTINGS {
        if let Some(text) = host.read_text(path)? {
            return Ok(Some(Ini::parse(&text)));
        }
    }
    Ok(None)
}

fn authority_bundle(host: &Host, network: &Internet, pip: Option<String>) -> Result<Option<String>> {
    if let Some(bundle) = &network.ca_bundle {
        return match host.read(bundle.as_str())? {
            Some(_) => Ok(Some(bundle.as_str().to_owned())),
            None => {
                Err(Exit::Settings
                    .because(format!("network.ca_bundle: {}: no such file", host.outside(bundle.as_str()))))
            }
        };
    }
    if pip.is_some() {
        return Ok(pip);
    }
    for bundle in AUTHORITIES {
        if super::leads_somewhere(host, bundle)? {
            return Ok(Some(bundle.to_owned()));
        }
    }
    Ok(None)
}

/// A file with the authorities of the settings beside those that the machine trusts, which every account can read: apt
/// fetches as one of its own. Nothing where the settings name none.
pub(in crate::drivers) fn combine_authorities(host: &Host, network: &Internet) -> Result<Option<String>> {
    let Some(own) = &network.ca_bundle else {
        return Ok(None);
    };
    let missing = || Exit::Settings.because(format!("network.ca_bundle: {}: no such file", host.outside(own.as_str())));
    let mut all = host.read(&host.followed(own.as_str())?)?.ok_or_else(missing)?;
    for bundle in AUTHORITIES {
        if let Some(more) = host.read(&host.followed(bundle)?)? {
            all.push(b'\n');
            all.extend(more);
            break;
        }
    }
    let path = host.runtime_file(COMBINED_AUTHORITIES)?;
    if host.read(&path)?.as_deref() != Some(&all) {
        host.put_file(&path, &all, host.is_root().then_some((0, 0)), 0o644)?;
    }
    Ok(Some(path))
}

fn login_of(host: &Host, setting: &str, file: &Option<AbsolutePath>) -> Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let key = KeptSecret::given(host, setting, file.as_str())?;
    match key.secret.reveal().split_once(':') {
        Some((user, password)) => Ok(Some(format!("{}:{}", encode_percent(user), encode_percent(password)))),
        None => {
            Err(Exit::Settings
                .because(format!("{setting}: {} does not hold USER:PASSWORD", host.outside(file.as_str()))))
        }
    }
}

fn with_login(url: &str, login: Option<&str>) -> String {
    match (url.split_once("://"), login) {
        (Some((scheme, rest)), Some(login)) => format!("{scheme}://{login}@{rest}"),
        _ => url.to_owned(),
    }
}

/// Without the logins in its addresses.
pub(super) fn mask_login(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("://") {
        text.push_str(before);
        text.push_str("://");
        let ends = |c: char| c.is_whitespace() || "/\"'`<>".contains(c);
        let host = &after[..after.find(ends).unwrap_or(after.len())];
        rest = match host.rfind('@') {
            Some(at) => &after[at + 1..],
            None => after,
        };
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Settings, Sources};

    #[test]
    fn no_login_is_shown() {
        let line = "Looking in indexes: https://me:se%40same@index.test/simple, http://b:c@x y@z";
        assert_eq!(mask_login(line), "Looking in indexes: https://index.test/simple, http://x y@z");
        assert_eq!(mask_login("proxy 'http://u:p@ss@proxy:1'"), "proxy 'http://proxy:1'");
        assert_eq!(mask_login("nothing: //a@b"), "nothing: //a@b");
    }

    #[test]
    fn settings_become_variables() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("etc")).unwrap();
        let at = |name: &str| home.path().join("etc").join(name);
        std::fs::write(at("login"), "me:p@ss word\n").unwrap();
        std::fs::set_permissions(at("login"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(at("pip.conf"), "[global]\ncert = /etc/mine.pem\n").unwrap();
        let host = Host::staged(home.path()).unwrap();
        let text = "[network]\nhttps_proxy = 'http://proxy.test:3128'\nproxy_login_file = '/etc/login'\n\
            no_proxy = ['.test']\npip_index_url = 'http://index.test:8080/simple/'\n";
        let settings =
            Settings::resolve(&Sources { files: vec![("x.toml".into(), text.into())], ..Sources::default() })
                .unwrap()
                .settings;
        let variables = pip_environment(&host, &settings.network).unwrap();
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(get("https_proxy"), Some("http://me:p%40ss%20word@proxy.test:3128"));
        assert_eq!(get("no_proxy"), Some(".test"));
        assert_eq!(get("PIP_CERT"), Some("/etc/mine.pem"));
        assert_eq!(get("PIP_TRUSTED_HOST"), Some("index.test:8080"));
        assert_eq!(get("UV_DEFAULT_INDEX"), Some("http://index.test:8080/simple/"));
    }
}
