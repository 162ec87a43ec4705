//! What the running broker says about itself, asked in one go.
//!
//! Erlang's own small tool asks in 10 ms; where it is not there, the broker's tool asks the same in a second.

use super::{MORE_SETTINGS, NODE_SETTINGS, NODES, START, TOOL_PATIENCE};
use crate::base::error::Exit;
use crate::base::text::sets_nothing;
use crate::host::{Child, Ended, Host};
use crate::layout::MANAGED;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The broker's tool, on every family of distributions.
const TOOL: &str = "/usr/sbin/rabbitmqctl";
const HOME: &str = "/var/lib/rabbitmq";
const SETTINGS: &str = "/etc/rabbitmq";
const ACCOUNT: &str = "rabbitmq";
/// What the tool ends with where it could not talk to the node.
const NOT_REACHED: i32 = 69;
/// When it is tried again then.
const AGAIN: Duration = Duration::from_secs(1);
/// The quick way is not waited for longer than this.
const QUICKLY: Duration = Duration::from_secs(5);

/// Names as hexadecimal digits: nothing in the answer needs quoting then, however it is printed.
const QUESTION: &str = r#"
H = fun(B) -> [io_lib:format("~2.16.0b", [X]) || <<X>> <= B] end,
G = fun(K, L) -> H(proplists:get_value(K, L)) end,
Vhosts = [["v", H(V), ";"] || V <- rabbit_vhost:list_names()],
Users = [["u", G(user, L), [[".", H(atom_to_binary(T, utf8))] || T <- proplists:get_value(tags, L)], ";"]
         || L <- rabbit_auth_backend_internal:list_users()],
Permissions = [["p", [[G(K, L), "."] || K <- [user, vhost, configure, write, read]], ";"]
               || L <- rabbit_auth_backend_internal:list_permissions()],
Queues = io_lib:format("q~b;", [length(rabbit_amqqueue:list())]),
Timeout = case application:get_env(rabbit, consumer_timeout) of {ok, N} -> N; undefined -> none end,
S = fun(K) -> H(iolist_to_binary(io_lib:format("~p", [case application:get_env(rabbit, K) of {ok, W} -> W; undefined -> none end]))) end,
Others = ["l", S(tcp_listeners), ";d", S(permit_deprecated_features), ";"],
lists:flatten([Vhosts, Users, Permissions, Queues, Others, io_lib:format("t~w;", [Timeout])]).
"#;

/// What the broker has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) vhosts: BTreeSet<String>,
    /// The tags of its accounts.
    pub(crate) users: BTreeMap<String, BTreeSet<String>>,
    /// How long a task may take; nothing where there is no limit.
    pub(crate) consumer_timeout_ms: Option<u64>,
    /// Where it listens, as Erlang writes it, without blanks.
    pub(super) listeners: String,
    /// What it still permits, in the same way.
    pub(super) permits: String,
    /// How many queues there are, on all vhosts.
    queues: usize,
    permissions: Vec<Permission>,
}

#[derive(Debug, PartialEq, Eq)]
struct Permission {
    user: String,
    vhost: String,
    configure: String,
    write: String,
    read: String,
}

impl Node {
    /// What an account may do, one text per vhost.
    pub(crate) fn permissions_of(&self, user: &str) -> BTreeSet<String> {
        self.of(user)
            .map(|p| {
                let Permission { vhost, configure, write, read, .. } = p;
                format!("{vhost}: configure {configure}, write {write}, read {read}")
            })
            .collect()
    }

    /// The vhosts that an account may use.
    pub(crate) fn vhosts_of(&self, user: &str) -> impl Iterator<Item = &str> {
        self.of(user).map(|permission| permission.vhost.as_str())
    }

    /// Whether it has nothing but what it was born with.
    fn is_newborn(&self) -> bool {
        self.vhosts.iter().eq(["/"]) && self.users.keys().eq(["guest"]) && self.queues == 0
    }

    fn of(&self, user: &str) -> impl Iterator<Item = &Permission> {
        self.permissions.iter().filter(move |p| p.user == user)
    }
}

pub(crate) fn is_installed(host: &Host) -> Result<bool> {
    Ok(host.stat(TOOL)?.is_some())
}

/// Whether the broker runs as its package started it, and nobody has used it yet or set anything for it: then no more
/// is changed by another name of the node than was before the package.
pub(crate) fn is_untouched(host: &Host) -> Result<bool> {
    for (directory, brought) in [(SETTINGS, &["rabbitmq-env.conf", "conf.d"][..]), (MORE_SETTINGS, &[])] {
        for name in host.list(directory)?.unwrap_or_default() {
            let text = host.read_text(&format!("{directory}/{name}"));
            let is_ours = || text.is_ok_and(|text| text.is_some_and(|text| text.contains(MANAGED)));
            if !brought.contains(&name.as_str()) && !is_ours() {
                return Ok(false);
            }
        }
    }
    let text = host.read_text(NODE_SETTINGS)?.unwrap_or_default();
    if !sets_nothing(text.as_bytes()) {
        return Ok(false);
    }
    let node = ask_quickly(host)?;
    Ok(node.is_some_and(|node| node.is_newborn()) && is_only_node(host))
}

/// Whether no program that is written in Erlang waits at the port mapper, but for a broker.
pub(crate) fn is_only_node(host: &Host) -> bool {
    let ended = host.child("epmd").args(["-names"]).patience(QUICKLY).end();
    // Where it does not run, nobody does.
    ended.is_ok_and(|ended| {
        let mut names = ended.output.lines();
        let is_broker = |line: &str| NODES.iter().any(|node| line.starts_with(&format!("name {} at ", short_of(node))));
        names.all(|line| !line.starts_with("name ") || is_broker(line))
    })
}

/// Stops a node that still runs under the name that its package gave it: without systemd, the script that stops the
/// broker looks only for the name that our settings have given it since.
pub(crate) fn stop_former(host: &Host) -> Result<()> {
    if !node_name(host)?.is_some_and(|name| NODES.contains(&name.as_str())) {
        return Ok(());
    }
    let name = format!("rabbit@{}", short_name()?);
    // It fails where there is none.
    let _ = host
        .child_apart("rabbitmqctl")
        .args(["--quiet", "shutdown"])
        // Not --node: its tool waits only for a node that it takes for one of this machine.
        .env("RABBITMQ_NODENAME", &name)
        .patience(TOOL_PATIENCE)
        .end();
    Ok(())
}

/// Asks the running broker by its own tool.
pub(crate) fn ask_node(host: &Host) -> Result<Node> {
    let question = QUESTION.split_whitespace().collect::<Vec<_>>().join(" ");
    let ended = run_tool(host, &["eval", &question])?;
    if !ended.status.success() {
        return Err(Exit::Unreachable.because(format!(
            "RabbitMQ's port is open, but rabbitmqctl can't connect: {}; is it the RabbitMQ of {HOME}? See its log in /var/log/rabbitmq",
            extract_reason(&ended)
        )));
    }
    parse_answer(&ended.output)
        .context("RabbitMQ's answer about its accounts is not understood; is its version newer than 4.2?")
}

/// Runs the broker's own tool. On a machine with much else to do it may not get through to a node that runs, and then it has done
/// nothing; so it is run again for a while.
pub(super) fn run_tool(host: &Host, arguments: &[&str]) -> Result<Ended> {
    let begin = Instant::now();
    loop {
        let tool = host.child_apart("rabbitmqctl").args(["--quiet"]).args(arguments).patience(TOOL_PATIENCE);
        let ended = tool.end()?;
        if ended.status.code() != Some(NOT_REACHED) || !is_running(&ended) || begin.elapsed() > START {
            return Ok(ended);
        }
        std::thread::sleep(AGAIN);
    }
}

/// Whether the tool's own diagnosis has found the node, which it could not talk to a moment before. One that refuses the tool, as
/// by another cookie, is found in another way.
fn is_running(ended: &Ended) -> bool {
    ended.complaint.contains("application running")
}

/// What rabbitmqctl found out, which stands in the middle of its advice.
pub(super) fn extract_reason(ended: &Ended) -> String {
    let found: Vec<&str> = ended
        .complaint
        .lines()
        .filter_map(|line| line.strip_prefix("  * "))
        .filter(|line| !line.starts_with("suggestion"))
        .map(str::trim)
        .collect();
    match found.is_empty() {
        true => ended.last_words(),
        false => found.join(", "),
    }
}

/// Asks by Erlang's own tool; nothing where that is missing, or does not find the node.
pub(crate) fn ask_quickly(host: &Host) -> Result<Option<Node>> {
    let ended = quick_question(host)?.and_then(|question| question.end().ok());
    Ok(ended.and_then(|ended| parse_answer(&ended.output).ok()))
}

/// The same while others are asked other things.
pub(super) async fn ask_beside(host: &Host) -> Result<Option<Node>> {
    let Some(begun) = quick_question(host)?.and_then(|question| question.begin().ok()) else {
        return Ok(None);
    };
    let ended = begun.end(host).await.ok();
    Ok(ended.and_then(|ended| parse_answer(&ended.output).ok()))
}

fn quick_question(host: &Host) -> Result<Option<Child<'_>>> {
    let Some(name) = node_name(host)? else {
        return Ok(None);
    };
    let accounts = &host.accounts;
    let Some((user, group)) = accounts.uid(ACCOUNT).zip(accounts.gid(ACCOUNT)) else {
        return Ok(None);
    };
    let question = host
        .child_of(user, group, "erl_call")
        .args(["-sname", &name, "-e"])
        // Where the cookie is that proves who asks.
        .env("HOME", HOME)
        .directory(HOME)
        .input(QUESTION.as_bytes())
        .patience(QUICKLY);
    Ok(Some(question))
}

/// What the port mapper calls a node.
fn short_of(node: &str) -> &str {
    node.split('@').next().unwrap_or(node)
}

/// The name under which the node is known to Erlang, where it has a short one.
pub(super) fn node_name(host: &Host) -> Result<Option<String>> {
    let settings = host.read_text(NODE_SETTINGS)?.unwrap_or_default();
    let name = settings
        .lines()
        .filter_map(|line| {
            let line = line.trim().trim_start_matches("export ");
            let (key, value) = line.split_once('=')?;
            (key.trim_start_matches("RABBITMQ_") == "NODENAME").then(|| value.trim_matches(['"', '\'', ' ']).to_owned())
        })
        .next_back()
        .unwrap_or_else(|| "rabbit".into());
    if settings.contains("USE_LONGNAME") {
        return Ok(None);
    }
    if name.contains('@') {
        return Ok(Some(name));
    }
    Ok(Some(format!("{name}@{}", short_name()?)))
}

/// The machine's name without its domain.
fn short_name() -> Result<String> {
    let machine = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    Ok(machine.split('.').next().unwrap_or_default().to_owned())
}

/// Reads an answer, whatever stands around it: the two tools print the same text in two ways, and break long lines.
fn parse_answer(printed: &str) -> Result<Node> {
    let (_, text) = printed.split_once('"').context("no text in it")?;
    let (text, _) = text.rsplit_once('"').context("no end of the text")?;
    let text: String = text.chars().filter(|c| !c.is_whitespace() && *c != '"').collect();
    let mut node = Node::default();
    let mut complete = false;
    for item in text.split_terminator(';') {
        let (kind, rest) = item.split_at_checked(1).context("an empty item")?;
        let fields = || -> Result<Vec<String>> { rest.split('.').map(decode_digits).collect() };
        match kind {
            "v" => {
                node.vhosts.insert(decode_digits(rest)?);
            }
            "u" => {
                let mut fields = fields()?.into_iter();
                let user = fields.next().context("an account without a name")?;
                node.users.insert(user, fields.collect());
            }
            "p" => {
                let [user, vhost, configure, write, read, _] = <[String; 6]>::try_from(fields()?)
                    .map_err(|_| anyhow::anyhow!("a permission with other fields"))?;
                node.permissions.push(Permission { user, vhost, configure, write, read });
            }
            "l" => node.listeners = without_blanks(&decode_digits(rest)?),
            "d" => node.permits = without_blanks(&decode_digits(rest)?),
            "q" => node.queues = rest.parse().context("no number")?,
            "t" => {
                node.consumer_timeout_ms = rest.parse().ok();
                complete = true;
            }
            _ => anyhow::bail!("an item of an unknown kind"),
        }
    }
    anyhow::ensure!(complete, "it ends too early");
    Ok(node)
}

fn without_blanks(text: &str) -> String {
    text.split_whitespace().collect()
}

fn decode_digits(digits: &str) -> Result<String> {
    let bytes: Option<Vec<u8>> =
        digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    Ok(String::from_utf8_lossy(&bytes.context("no hexadecimal digits")?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_LINE: &str = r#"{ok, "v2f;v63616d636f7073;u6775657374.61646d696e6973747261746f72;u63616d636f7073;p63616d636f7073.63616d636f7073.2e2a.2e2a..;l5b7b22612220207d5d;d6e6f6e65;t7200000;"}"#;

    #[test]
    fn both_tools_say_the_same() {
        let node = parse_answer(ONE_LINE).unwrap();
        let broken = "\"v2f;v63616d636f7073;u6775657374.61646d696e6973747261746f72;u63616d6\"\n \"36f7073;p63616d636f7073.63616d636f7073.2e2a.2e2a..;l5b7b22612220207d5d;d6e6f6e65;t7200000;\"\n";
        assert_eq!(parse_answer(broken).unwrap(), node);
        assert_eq!(node.consumer_timeout_ms, Some(7_200_000));
        assert_eq!((node.listeners.as_str(), node.permits.as_str()), ("[{\"a\"}]", "none"));
        assert!(node.vhosts.contains("camcops"));
        assert_eq!(node.users["guest"], BTreeSet::from(["administrator".into()]));
        assert_eq!(node.users["camcops"], BTreeSet::new());
        let permissions = node.permissions_of("camcops");
        assert_eq!(permissions.into_iter().collect::<Vec<_>>(), ["camcops: configure .*, write .*, read "]);
        assert_eq!(node.vhosts_of("guest").count(), 0);
    }

    #[test]
    fn a_queue_is_a_sign_of_use() {
        let newborn = |text: &str| parse_answer(text).unwrap().is_newborn();
        assert!(newborn("\"v2f;u6775657374.;q0;t7200000;\""));
        for used in [
            "\"v2f;u6775657374.;q1;t7200000;\"",
            "\"v2f;v63;u6775657374.;q0;t7200000;\"",
            "\"v2f;u63;q0;t7200000;\"",
            "\"v2f;u6775657374.;u63;q0;t7200000;\"",
        ] {
            assert!(!newborn(used), "{used}");
        }
    }

    #[test]
    fn no_limit_is_no_number() {
        assert_eq!(parse_answer("\"v2f;tundefined;\"").unwrap().consumer_timeout_ms, None);
    }

    #[test]
    fn half_an_answer_is_none() {
        for bad in ["", "\"\"", "{error, \"oops\"}", "\"v2f;\"", "\"t1;p00;\"", "\"vzz;t1;\""] {
            assert!(parse_answer(bad).is_err(), "{bad}");
        }
    }
}
