//! The settings of the broker, file by file, and what of them the running broker does.

use super::MORE_SETTINGS;
use super::node::Node;
use crate::host::Host;
use crate::layout::MANAGED;
use anyhow::Result;

const CONSUMER_TIMEOUT: &str = "consumer_timeout";

/// Whether a node does all that a text says; nothing is known of settings that are not ours.
pub(super) fn are_followed(text: &str, node: &Node) -> bool {
    said_settings(text).all(|(key, value)| match key {
        CONSUMER_TIMEOUT => {
            value.parse().is_ok_and(|wanted: u64| node.consumer_timeout_ms.is_none_or(|allowed| allowed >= wanted))
        }
        "listeners.tcp.default" => {
            let Some((address, port)) = value.rsplit_once(':') else {
                return false;
            };
            node.listeners == format!("[{{\"{address}\",{port}}}]")
        }
        _ => {
            let feature = key.strip_prefix("deprecated_features.permit.");
            feature.is_some_and(|feature| node.permits.contains(&format!("{feature}=>{value}")))
        }
    })
}

/// A later file of somebody else that has the last word about how long a task may take.
pub(super) fn overriding_file(host: &Host) -> Result<Option<String>> {
    let mut after_ours = false;
    let mut last = None;
    for name in host.list(MORE_SETTINGS)?.unwrap_or_default() {
        if !name.ends_with(".conf") {
            continue;
        }
        let path = format!("{MORE_SETTINGS}/{name}");
        let text = host.read_text(&path)?.unwrap_or_default();
        if text.contains(MANAGED) {
            after_ours = true;
            last = None;
        } else if after_ours && said_settings(&text).any(|(key, _)| key == CONSUMER_TIMEOUT) {
            last = Some(path);
        }
    }
    Ok(last)
}

/// Keys and values.
fn said_settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty()).map(
        |line| {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            (key.trim(), value.trim())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let mut node = Node::default();
        node.consumer_timeout_ms = Some(7_200_000);
        node.listeners = "[{\"127.0.0.1\",5672}]".into();
        node.permits = "#{global_qos=>true,transient_nonexcl_queues=>true}".into();
        node
    }

    #[test]
    fn a_longer_limit_is_all_that_differs() {
        let text = |limit: &str, rest: &str| format!("# ours\nconsumer_timeout = {limit}\n{rest}");
        let listens = "listeners.tcp.default = 127.0.0.1:5672\n";
        assert!(are_followed(&text("7200000", listens), &node()));
        // Another instance may need more.
        assert!(are_followed(&text("60000", ""), &node()));
        assert!(!are_followed(&text("7300000", listens), &node()));
        assert!(!are_followed(&text("nonsense", ""), &node()));
    }

    #[test]
    fn what_takes_a_restart_is_seen() {
        for differs in [
            "listeners.tcp.default = 127.0.0.1:5673",
            "listeners.tcp.default = 5672",
            "deprecated_features.permit.other = true",
            "vm_memory_high_watermark.relative = 0.6",
        ] {
            assert!(!are_followed(differs, &node()), "{differs}");
        }
        assert!(are_followed("deprecated_features.permit.global_qos = true", &node()));
    }

    #[test]
    fn the_last_word_is_somebody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("etc/rabbitmq/conf.d");
        std::fs::create_dir_all(&home).unwrap();
        let host = Host::staged(directory.path()).unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.join(name), text).unwrap();
        write("10-own.conf", "consumer_timeout = 1\n");
        write("90-camcops.conf", &format!("# {MANAGED}\nconsumer_timeout = 7200000\n"));
        assert_eq!(overriding_file(&host).unwrap(), None);
        write("99-own.conf", "# consumer_timeout = 1\n");
        assert_eq!(overriding_file(&host).unwrap(), None);
        write("99-own.conf", "consumer_timeout=60000\n");
        let found = overriding_file(&host).unwrap();
        assert_eq!(found.as_deref(), Some("/etc/rabbitmq/conf.d/99-own.conf"));
    }
}
