//! The message broker: a vhost of RabbitMQ, and the application's account on it.
//!
//! Facets of a vhost: `consumer_timeout`, what the running broker allows a task. Facets of an account: `permissions` and
//! `tags`, both compared both ways, and `login`, which is a real login with a message sent and received.
//!
//! A broker that is looked after elsewhere is only logged in to.

mod node;
mod settings;
mod stored;

use crate::base::error::Exit;
use crate::base::secret::Secret;
use crate::host::Host;
use crate::probe::Cause;
use crate::probe::broker::BrokerAddress;
use crate::resource::{Enforced, Facets, State};
use anyhow::{Context, Result};
use node::Node;
pub(crate) use node::stop_former;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
pub(crate) use stored::{choose_node, find_unreadable};
use tokio::time::sleep;
use zeroize::Zeroizing;

/// Names the node; without it, and so with another name, the broker would start empty.
pub(crate) const NODE_SETTINGS: &str = "/etc/rabbitmq/rabbitmq-env.conf";
/// Holds what the nodes of this machine have stored, each under its name.
pub(crate) const STORED: &str = "/var/lib/rabbitmq/mnesia";
/// Where settings of several hands lie beside each other.
pub(crate) const MORE_SETTINGS: &str = "/etc/rabbitmq/conf.d";
/// Erlang's port mapper; every program that is written in Erlang uses the same one.
const PORT_MAPPER: &str = "/usr/bin/epmd";
/// The names of the nodes that this program sets up: they stay the same whatever the machine is called. The second is of a
/// broker that does not start on what the first has stored.
pub(crate) const NODES: [&str; 2] = ["rabbit@localhost", "rabbit4@localhost"];

/// Holds an account while the broker reads it.
const DEFINITIONS: &str = "broker.json";
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the broker's tool may take: a second or two, and more than a minute where the machine has much else to do.
const TOOL_PATIENCE: Duration = Duration::from_secs(180);
/// How long it may take to start.
const START: Duration = Duration::from_secs(30);

/// What this driver knows of the site.
#[derive(Debug)]
pub(crate) struct Broker {
    /// How the application gets to the broker.
    pub(crate) endpoint: BrokerAddress,
    /// Whether the broker is this machine's own.
    pub(crate) local: bool,
    /// How long a task may take.
    pub(crate) consumer_timeout_ms: u64,
    node: RefCell<Option<Rc<Node>>>,
    /// Whether a message of the application has come and gone since the last look.
    proved: Cell<bool>,
}

impl Broker {
    /// Nothing is asked yet.
    pub(crate) fn new(endpoint: BrokerAddress, local: bool, consumer_timeout_ms: u64) -> Broker {
        Broker { endpoint, local, consumer_timeout_ms, node: RefCell::default(), proved: Cell::new(false) }
    }

    /// Asks the broker anew when it is next needed.
    pub(crate) fn forget(&self) {
        self.node.take();
        self.proved.set(false);
    }

    /// The application has logged in, and a message has come and gone.
    pub(crate) fn prove(&self) {
        self.proved.set(true);
    }

    /// What the running broker has; nothing where it does not run.
    async fn node(&self, host: &Host) -> Result<Option<Rc<Node>>> {
        if let Some(node) = &*self.node.borrow() {
            return Ok(Some(Rc::clone(node)));
        }
        if !node::is_installed(host)? {
            return Ok(None);
        }
        let node = match node::ask_beside(host).await? {
            Some(node) => node,
            None if self.endpoint.is_open(PATIENCE).await => node::ask_node(host)?,
            None => return Ok(None),
        };
        let node = Rc::new(node);
        self.node.replace(Some(Rc::clone(&node)));
        Ok(Some(node))
    }

    /// Enough is as good as exactly that: another instance may need more.
    fn enough(&self, node: &Node) -> bool {
        node.consumer_timeout_ms.is_none_or(|allowed| allowed >= self.consumer_timeout_ms)
    }
}

/// The value of the facet `consumer_timeout` where a task may take as long as the settings say.
pub(crate) fn long_enough(milliseconds: u64) -> String {
    format!("at least {milliseconds} ms")
}

/// Whether the broker of this machine is as its package started it, and nobody has used it yet.
pub(crate) fn is_untouched(host: &Host) -> Result<bool> {
    match node::is_installed(host)? {
        true => node::is_untouched(host),
        false => Ok(false),
    }
}

/// Whether Erlang's port mapper can stay on this machine without a loss to others.
pub(crate) fn may_hide_mapper(host: &Host) -> Result<bool> {
    let is_there = host.stat(PORT_MAPPER)?.is_some();
    Ok(!is_there || (host.staged_root().is_none() && node::is_only_node(host)))
}

/// All that Celery needs on its vhost: it makes queues and exchanges of many names.
pub(crate) fn all_permissions(vhost: &str) -> String {
    format!("{vhost}: configure .*, write .*, read .*")
}

/// Whether the vhost is there, and what the broker allows its tasks.
pub(crate) async fn observe_vhost(known: &Broker, host: &Host, name: &str) -> Result<State> {
    let Some(node) = known.node(host).await? else {
        return Ok(State::Absent);
    };
    if !node.vhosts.contains(name) {
        return Ok(State::Absent);
    }
    let allowed = match node.consumer_timeout_ms {
        Some(allowed) if !known.enough(&node) => format!("{allowed} ms"),
        _ => long_enough(known.consumer_timeout_ms),
    };
    Ok(State::Present(Facets::new().with("consumer_timeout", allowed)))
}

/// Makes the vhost, or deletes it with the messages in it.
pub(crate) async fn enforce_vhost(
    known: &Broker,
    host: &Host,
    name: &str,
    before: &State,
    after: &State,
) -> Result<Enforced> {
    let node = start_node(host, known).await?;
    if *after == State::Absent {
        run_control(host, &["delete_vhost", name])?;
        return Ok(Enforced::Done);
    }
    if *before != State::Absent {
        let Some(allowed) = node.consumer_timeout_ms else {
            return Ok(Enforced::Done);
        };
        if let Some(other) = settings::overriding_file(host)? {
            return Err(Exit::Failed.because(format!(
                "the running broker aborts a task after {allowed} ms, and broker.consumer_timeout_ms is {}: {other} sets consumer_timeout to another value; remove that line, and run again",
                known.consumer_timeout_ms
            )));
        }
        allow_timeout(host, known.consumer_timeout_ms)?;
        known.forget();
        return Ok(Enforced::Done);
    }
    run_control(host, &["add_vhost", name])?;
    Ok(Enforced::Done)
}

/// Whether the running broker does what one of our files says, which may have changed since it started.
pub(crate) fn is_followed(host: &Host, path: &str) -> Result<bool> {
    let text = host.read_text(path)?.unwrap_or_default();
    let node = node::ask_quickly(host)?;
    Ok(node.is_some_and(|node| settings::are_followed(&text, &node)))
}

/// Changes in the running broker what can be changed while it runs: nobody notices. Whether there was one that runs.
pub(crate) async fn adjust_node(known: &Broker, host: &Host) -> Result<bool> {
    known.forget();
    let Some(node) = known.node(host).await? else {
        return Ok(false);
    };
    if !known.enough(&node) && settings::overriding_file(host)?.is_none() {
        allow_timeout(host, known.consumer_timeout_ms)?;
        known.forget();
    }
    Ok(true)
}

/// Lets tasks take longer. It holds for connections that are made from now on.
fn allow_timeout(host: &Host, milliseconds: u64) -> Result<()> {
    let set = format!("application:set_env(rabbit, consumer_timeout, {milliseconds}).");
    run_control(host, &["eval", &set])
}

/// What the account may do, and whether the application can log in with it.
pub(crate) async fn observe_account(known: &Broker, host: &Host, name: &str) -> Result<State> {
    let mut facets = Facets::new();
    if known.local {
        let Some(node) = known.node(host).await? else {
            return Ok(State::Absent);
        };
        let Some(tags) = node.users.get(name) else {
            return Ok(State::Absent);
        };
        facets = facets.with("tags", tags.clone()).with("permissions", node.permissions_of(name));
    }
    let answered = match known.proved.get() {
        true => Ok(()),
        false => known.endpoint.round_trip(PATIENCE).await.map(drop),
    };
    let login = match answered {
        Ok(()) => "works",
        Err(trouble) if known.local && trouble.cause == Cause::Denied => "denied",
        Err(trouble) if known.local && trouble.cause == Cause::NoVhost => "not on the vhost",
        Err(trouble) => return Err(Exit::Unreachable.because(trouble.text)),
    };
    Ok(State::Present(facets.with("login", login)))
}

/// Makes the account, or gives it back its password and exactly its permissions; or deletes it. `pause` stops what runs
/// with its former password.
pub(crate) async fn enforce_account(
    known: &Broker,
    host: &Host,
    name: &str,
    before: &State,
    after: &State,
    pause: impl FnOnce() -> Result<()>,
) -> Result<Enforced> {
    let node = start_node(host, known).await?;
    let Some(wanted) = after.facets() else {
        run_control(host, &["delete_user", name])?;
        return Ok(Enforced::Done);
    };
    let vhost = known.endpoint.vhost.as_str();
    let elsewhere: Vec<&str> = node.vhosts_of(name).filter(|other| *other != vhost).collect();
    let tags = node.users.get(name);
    let login = before.text("login");
    let powerful = tags.is_some_and(|tags| !tags.is_empty());
    if tags.is_some() && login != Some("works") && (powerful || !elsewhere.is_empty()) {
        let what = match elsewhere.first() {
            Some(other) => format!("may use the vhost {other}"),
            None => "has the tags of an administrator".to_owned(),
        };
        return Err(Exit::CannotCreate.because(format!(
            "the broker already has an account {name} that {what}, and a different password, so it belongs to somebody else; choose another broker.user, or set broker.password_file to its password"
        )));
    }
    if tags.is_some() && login == Some("denied") {
        // It would be turned away.
        pause()?;
    }
    if tags.is_none() || login == Some("denied") {
        define_user(host, name, &known.endpoint.password)?;
    }
    if powerful {
        run_control(host, &["set_user_tags", name])?;
    }
    for other in elsewhere {
        run_control(host, &["clear_permissions", "-p", other, name])?;
    }
    let permitted = crate::resource::FacetValue::Set(node.permissions_of(name));
    if wanted.get("permissions") != Some(&permitted) {
        let all = ["set_permissions", "-p", vhost, name, ".*", ".*", ".*"];
        run_control(host, &all)?;
    }
    Ok(Enforced::Done)
}

/// Fails where the broker of this machine can't be asked.
pub(crate) async fn wait_for_answer(known: &Broker, host: &Host) -> Result<()> {
    start_node(host, known).await?;
    Ok(())
}

/// Makes the account, without tags, or gives it this password. The password is in a file that only the broker can read:
/// its tool would take one from its input, but with newer Erlang it waits for that for ever.
fn define_user(host: &Host, name: &str, password: &Secret) -> Result<()> {
    let owner = host.accounts.owner("rabbitmq:rabbitmq").context("RabbitMQ's account does not exist")?;
    let definitions =
        Zeroizing::new(json!({"users": [{"name": name, "password": password.reveal(), "tags": []}]}).to_string());
    let file = host.runtime_file(DEFINITIONS)?;
    host.put_file(&file, definitions.as_bytes(), Some(owner), 0o600)?;
    let done = run_control(host, &["import_definitions", &file]);
    host.remove_file(&file)?;
    done
}

/// Has the broker's own tool do something.
fn run_control(host: &Host, arguments: &[&str]) -> Result<()> {
    let ended = node::run_tool(host, arguments).map_err(|why| Exit::Unreachable.give_to(why))?;
    if ended.status.success() {
        return Ok(());
    }
    let what = arguments.first().copied().unwrap_or_default();
    let why = node::extract_reason(&ended);
    Err(Exit::Unreachable
        .because(format!("rabbitmqctl {what} failed ({}): {why}; see /var/log/rabbitmq", ended.status)))
}

/// The broker when it runs; it may have been started just now.
async fn start_node(host: &Host, known: &Broker) -> Result<Rc<Node>> {
    let begin = Instant::now();
    loop {
        if let Some(node) = known.node(host).await? {
            return Ok(node);
        }
        if begin.elapsed() > START || !node::is_installed(host)? {
            return Err(Exit::Unreachable.because(format!(
                "RabbitMQ is not running on this machine (nothing listens on {}): install rabbitmq-server and start it, see /var/log/rabbitmq if it does not keep running, and run again",
                known.endpoint.address
            )));
        }
        sleep(Duration::from_millis(200)).await;
    }
}
