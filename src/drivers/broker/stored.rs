//! What a broker has stored on this machine, and whether the one that is installed now starts on it.
//!
//! RabbitMQ 4 starts on what 3.13 has stored, with every feature flag of its enabled, and on nothing earlier: no release of
//! a distribution that has 4 was preceded by one with 3.13. Nothing of it can be converted afterwards, as only the earlier
//! broker could do that. So the new one gets a node of its own, which starts empty beside it.

use super::node::node_name;
use super::{NODES, STORED};
use crate::host::Host;
use anyhow::Result;

/// The first version that refuses what earlier ones have stored, and a flag that only a broker enables which it follows.
const REFUSES: (u32, u32) = (4, 0);
const FLAG: &str = "message_containers";

/// The name of this program's node: the second one where the broker does not start on what the first has stored, and from
/// then on.
pub(crate) fn choose_node(host: &Host, version: Option<(u32, u32)>) -> Result<&'static str> {
    let [first, second] = NODES;
    let is_second = host.stat(&format!("{STORED}/{second}"))?.is_some() || is_unreadable(host, version, first)?;
    Ok(if is_second { second } else { first })
}

/// What the node that is set up has stored, where the broker does not start on it.
pub(crate) fn find_unreadable(host: &Host, version: Option<(u32, u32)>) -> Result<Option<String>> {
    let Some(name) = node_name(host)? else {
        return Ok(None);
    };
    Ok(is_unreadable(host, version, &name)?.then(|| format!("{STORED}/{name}")))
}

fn is_unreadable(host: &Host, version: Option<(u32, u32)>, name: &str) -> Result<bool> {
    let stored = format!("{STORED}/{name}");
    if version.is_none_or(|version| version < REFUSES) || host.stat(&stored)?.is_none() {
        return Ok(false);
    }
    let flags = host.read_text(&format!("{stored}-feature_flags"))?;
    Ok(flags.is_some_and(|flags| !flags.contains(FLAG)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_of(version: (u32, u32), stored: &[(&str, &str)]) -> &'static str {
        let root = tempfile::tempdir().unwrap();
        for (name, flags) in stored {
            let path = root.path().join(format!("var/lib/rabbitmq/mnesia/{name}"));
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.with_file_name(format!("{name}-feature_flags")), flags).unwrap();
        }
        choose_node(&Host::staged(root.path()).unwrap(), Some(version)).unwrap()
    }

    #[test]
    fn what_a_broker_does_not_start_on_stays_beside_it() {
        let [first, second] = NODES;
        let (old, new) = ("[implicit_default_bindings,\n quorum_queue].\n", "[message_containers,quorum_queue].\n");
        assert_eq!(node_of((3, 10), &[]), first);
        assert_eq!(node_of((3, 10), &[(first, old)]), first);
        assert_eq!(node_of((4, 0), &[]), first);
        assert_eq!(node_of((4, 0), &[("rabbit@machine", old)]), first);
        assert_eq!(node_of((4, 0), &[(first, new)]), first);
        assert_eq!(node_of((4, 0), &[(first, old)]), second);
        assert_eq!(node_of((4, 2), &[(first, old), (second, new)]), second);
        assert_eq!(node_of((4, 2), &[(second, new)]), second);
    }
}
