//! The ports that Apache listens on by other people's configuration: on one of those it must not be told to listen again.

use crate::host::{Host, PathKind};
use crate::layout::{APACHE_PORT, Flavour};
use crate::settings::{Frontend, Settings};
use std::collections::BTreeSet;

/// Where Debian and Red Hat have it listen.
pub(crate) const USUAL_HTTP: u16 = 80;
const USUAL_HTTPS: u16 = 443;
/// Files of Apache include others, but not for ever.
const MOST_FILES: usize = 500;

/// Whether the distribution's Apache listens on a port by itself.
pub(super) fn is_usual(port: u16) -> bool {
    [USUAL_HTTP, USUAL_HTTPS].contains(&port)
}

/// Whether the site has other ports than those.
pub(crate) fn uses_own_ports(settings: &Settings) -> bool {
    let web = &settings.web;
    let http = web.http_port.get().map_or(USUAL_HTTP, |port| port.get());
    web.frontend == Frontend::Apache && !(is_usual(http) && is_usual(web.https_port.get()))
}

/// Every port that Apache's configuration names after `Listen`, but for files of this program.
///
/// What stands in a condition counts: to listen twice would end Apache, and not to listen at all is told.
pub(crate) fn find_listens(host: &Host, flavour: &Flavour) -> BTreeSet<u16> {
    let (main, root) = flavour.apache_main;
    let mut ports = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut waiting = vec![main.to_owned()];
    while let Some(file) = waiting.pop() {
        if seen.len() == MOST_FILES || !seen.insert(file.clone()) {
            continue;
        }
        // What can't be read as text holds nothing that Apache could.
        let Some(text) = host.followed(&file).and_then(|file| host.read_text(&file)).ok().flatten() else {
            continue;
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(directive), Some(argument)) = (words.next(), words.next()) else {
                continue;
            };
            let argument = argument.trim_matches('"');
            match directive.to_ascii_lowercase().as_str() {
                "listen" => ports.extend(listened_port(argument)),
                "include" | "includeoptional" => waiting.extend(included_files(host, root, argument)),
                _ => {}
            }
        }
    }
    ports
}

fn listened_port(address: &str) -> Option<u16> {
    address.rsplit(':').next()?.parse().ok()
}

/// The files that a pattern stands for: with wildcards in the last part of its path, as distributions and people have it.
fn included_files(host: &Host, root: &str, pattern: &str) -> Vec<String> {
    let pattern = match pattern.starts_with('/') {
        true => pattern.to_owned(),
        false => format!("{root}/{pattern}"),
    };
    match pattern.rsplit_once('/') {
        Some((directory, last)) if last.contains(['*', '?']) => list_matches(host, directory, last),
        _ if is_directory(host, &pattern) => list_matches(host, &pattern, "*"),
        _ => vec![pattern],
    }
}

fn is_directory(host: &Host, path: &str) -> bool {
    let found = host.followed(path).and_then(|path| host.stat(&path)).ok().flatten();
    found.is_some_and(|entry| entry.kind == PathKind::Directory)
}

fn list_matches(host: &Host, directory: &str, pattern: &str) -> Vec<String> {
    let names = host.followed(directory).and_then(|directory| host.list(&directory)).ok().flatten().unwrap_or_default();
    let is_meant = |name: &String| !name.starts_with(APACHE_PORT) && matches(pattern.as_bytes(), name.as_bytes());
    names.into_iter().filter(is_meant).map(|name| format!("{directory}/{name}")).collect()
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|taken| matches(rest, &name[taken..])),
        ([b'?', rest @ ..], [_, name @ ..]) => matches(rest, name),
        ([one, rest @ ..], [first, name @ ..]) => one == first && matches(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{DEBIAN, RHEL};
    use std::fs;

    fn listens(flavour: &Flavour, files: &[(&str, &str)]) -> Vec<u16> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        find_listens(&Host::staged(root.path()).unwrap(), flavour).into_iter().collect()
    }

    #[test]
    fn only_what_is_included_counts_and_nothing_of_ours() {
        let main = "Include ports.conf\n  IncludeOptional sites-enabled/*.conf\nInclude /srv/more\nInclude apache2.conf\n# Listen 1\n";
        let files = [
            ("/etc/apache2/apache2.conf", main),
            ("/etc/apache2/ports.conf", "Listen 80\n<IfModule ssl_module>\n\tlisten 443\n</IfModule>\n"),
            (
                "/etc/apache2/sites-enabled/a.conf",
                "Listen 192.0.2.1:8443 https\nListen [2001:db8::1]:8444\nListen ${PORT}\n",
            ),
            ("/etc/apache2/sites-enabled/b.off", "Listen 8445\n"),
            ("/etc/apache2/sites-enabled/camcops-port-8446.conf", "Listen 8446 https\n"),
            ("/srv/more/one", "Listen \"8447\"\n"),
        ];
        assert_eq!(listens(&DEBIAN, &files), [80, 443, 8443, 8444, 8447]);
        assert!(listens(&DEBIAN, &[]).is_empty());
        let red_hat = [
            ("/etc/httpd/conf/httpd.conf", "Listen 80\nIncludeOptional conf.d/*.conf\n"),
            ("/etc/httpd/conf.d/ssl.conf", "Listen 443 https\n"),
        ];
        assert_eq!(listens(&RHEL, &red_hat), [80, 443]);
    }
}
