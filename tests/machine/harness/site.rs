//! A site that runs on a machine, seen from outside and by its own tools.

use super::booted::Booted;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long everything may take to come back. Two cores start four times Python with all of CamCOPS, and a service
/// waits five seconds before it starts again.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a site's services are called.
pub const SERVICES: [&str; 4] = ["server", "workers", "scheduler", "monitor"];

/// Where the site is, inside.
pub const URL: &str = "https://machine/";

/// Somebody else's site in the same Apache: a shell script that makes it.
pub const OTHERS: &str = r#"
printf 'Listen 127.0.0.1:8081\n<VirtualHost 127.0.0.1:8081>\nDocumentRoot /srv/other\n<Directory /srv/other>\nRequire all granted\n</Directory>\n</VirtualHost>\n' > /etc/apache2/sites-available/other.conf
mkdir /srv/other
echo 'somebody else' > /srv/other/index.html
a2ensite --quiet other
systemctl reload apache2
"#;

/// The unit of a service.
pub fn unit(service: &str) -> String {
    format!("camcops-{service}@camcops.service")
}

/// An answer of the web server.
#[derive(Debug)]
pub struct Page {
    /// The status.
    pub status: u16,
    /// The header, in small letters.
    pub header: String,
    /// The rest.
    pub body: String,
}

/// Asks the web server, with more arguments of curl.
pub fn page(machine: &Booted, path: &str, more: &str) -> Page {
    let whole = machine.run(&format!(
        "curl --silent --show-error --insecure --include --max-time 60 --http1.1 {more} '{URL}{path}' | tr -d '\\0\\r'"
    ));
    let (header, body) = whole.split_once("\n\n").unwrap();
    Page {
        status: header.split(' ').nth(1).unwrap().parse().unwrap(),
        header: header.to_lowercase(),
        body: body.to_owned(),
    }
}

/// What a tablet is told whose user has the right password.
pub const NO_GROUP: &str = "No upload group set for user admin";

/// What a tablet is answered that wants to be registered: `name:value` lines.
pub fn as_tablet(machine: &Booted, user: &str, password: &str) -> Page {
    // The password stands in a file, as the others that are looked for do.
    let form = format!(
        "operation=register&devicefriendlyname=tablet&camcops_version=2.4.24&device=tablet-1&user={user}&password={password}"
    );
    std::fs::write(machine.path("/root/form"), form).unwrap();
    page(machine, "api", "--data @/root/form")
}

/// The services as the program sees them, by name, where it can tell.
pub fn services(machine: &Booted) -> BTreeMap<String, Value> {
    let (_, told, _) = machine.tried("camcops-provision --json status");
    let told: Value = serde_json::from_str(&told).unwrap_or_default();
    let all = told["services"].as_array().cloned().unwrap_or_default();
    all.into_iter().map(|one| (one["name"].as_str().unwrap().to_owned(), one)).collect()
}

/// The main process of everything that runs.
pub fn processes(machine: &Booted) -> BTreeMap<String, u64> {
    services(machine).into_iter().filter_map(|(name, one)| Some((name, one["pid"].as_u64()?))).collect()
}

/// What keeps the site from being whole; nothing if all of it runs and answers.
pub fn trouble(machine: &Booted) -> Option<String> {
    let services = services(machine);
    for service in SERVICES {
        let found = services.get(&unit(service));
        if found.is_none_or(|one| one["answers"] != Value::Bool(true)) {
            return Some(format!("{service}: {found:?}"));
        }
    }
    let ill = services.values().find(|one| one["answers"] == Value::Bool(false) || one["state"] != "running");
    if let Some(one) = ill {
        return Some(one.to_string());
    }
    let (code, _, why) = machine.tried("camcops-provision wait --timeout 0");
    (code != 0).then_some(why)
}

/// Waits until all of it runs and answers, without any help; gives how long that took.
pub fn wait_until_well(machine: &Booted, after: &str) -> Duration {
    wait_until(machine, after, |_| false)
}

/// Waits until all of it runs and answers, or answers others only: tablets that are always at work may leave no worker
/// free within the time that the program's own look at the site has.
pub fn wait_until_at_work(machine: &Booted, after: &str) -> Duration {
    wait_until(machine, after, |why| why.contains("all its workers may be busy"))
}

fn wait_until(machine: &Booted, after: &str, is_enough: fn(&str) -> bool) -> Duration {
    let start = Instant::now();
    while let Some(why) = trouble(machine) {
        if start.elapsed() > PATIENCE {
            if is_enough(&why) {
                break;
            }
            let journal = machine.tried("journalctl --no-pager --lines=80").1;
            panic!("after {after}: {why}\n{journal}");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    eprintln!("well again {:.0} s after {after}", start.elapsed().as_secs_f64());
    start.elapsed()
}

/// Asks for an address again and again, each time with a new connection, until it is told to stop; then tells what the
/// answers were.
const VISITOR: &str = r#"
rm -f /run/stop-$NAME /run/answers-$NAME
(
    while [ ! -e /run/stop-$NAME ]; do
        curl --silent --insecure --max-time 100 --output /dev/null --write-out '%{http_code}\n' $ADDRESS || echo "curl: $?"
    done > /run/answers-$NAME
    mv /run/answers-$NAME /run/all-$NAME
) > /dev/null 2>&1 < /dev/null &
until [ -s /run/answers-$NAME ]; do sleep 0.1; done
"#;

/// Begins to visit an address, under a name, again and again.
pub fn visit(machine: &Booted, name: &str, address: &str) {
    machine.run(&format!("NAME={name} ADDRESS={address}\n{VISITOR}"));
}

/// Ends the visits; gives how many they were, all with success.
pub fn all_were_answered(machine: &Booted, name: &str) -> usize {
    let answers = machine.run(&format!(
        "touch /run/stop-{name}
         until [ -e /run/all-{name} ]; do sleep 0.1; done
         cat /run/all-{name}"
    ));
    let failed: Vec<&str> = answers.lines().filter(|answer| *answer != "200").collect();
    let all = answers.lines().count();
    assert!(failed.is_empty(), "{} of {all}: {failed:?}", failed.len());
    assert!(all > 20, "{all}");
    all
}
