use proptest::prelude::*;

use super::*;
use crate::settings::{Auto, ConfigValue, example};

fn files(texts: &[&str]) -> Sources {
    let name = |index| PathBuf::from(format!("/etc/{index}.toml"));
    let files = texts.iter().enumerate();
    Sources { files: files.map(|(index, text)| (name(index), (*text).to_owned())).collect(), ..Sources::default() }
}

fn flags(assignments: &[&str]) -> Sources {
    Sources { overrides: assignments.iter().map(|text| (*text).to_owned()).collect(), ..Sources::default() }
}

fn variables(given: &[(&str, &str)]) -> Sources {
    let environment = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Sources { environment: environment.collect(), ..Sources::default() }
}

fn resolved(sources: &Sources) -> Resolved {
    Settings::resolve(sources).unwrap_or_else(|problems| panic!("{problems}"))
}

fn told(sources: &Sources) -> String {
    Settings::resolve(sources).expect_err("these settings are wrong").to_string()
}

/// KEY=VALUE as a flag, and the value that comes out of it.
const GOOD: &[(&str, &str)] = &[
    ("account.user=camcops", "\"camcops\""),
    ("database.name=camcops_two", "\"camcops_two\""),
    ("database.name=", "\"\""),
    ("database.tuning=false", "false"),
    ("database.password_file=/root/password", "\"/root/password\""),
    ("broker.port=5673", "5673"),
    ("broker.vhost=/", "\"/\""),
    ("web.https_port=8443", "8443"),
    ("web.http_port=0", "0"),
    ("web.server_names=[\"a.example.org\", '192.0.2.1']", "[\"a.example.org\", \"192.0.2.1\"]"),
    ("web.server_names=a.example.org", "[\"a.example.org\"]"),
    ("web.server_names=\"a.example.org\"", "[\"a.example.org\"]"),
    ("web.server_names=a.example.org, 2001:db8::1", "[\"a.example.org\", \"2001:db8::1\"]"),
    ("web.server_names=", "[]"),
    ("web.listen=::1", "[\"::1\"]"),
    ("web.path=/camcops", "\"/camcops\""),
    ("web.path=/a/b.c~d_e-f", "\"/a/b.c~d_e-f\""),
    ("web.bind=127.0.0.1:8000", "\"127.0.0.1:8000\""),
    ("web.bind=[::1]:8000", "\"[::1]:8000\""),
    ("web.workers=auto", "\"auto\""),
    ("web.workers=256", "256"),
    (
        "web.trusted_proxies=10.0.0.0/8,2001:db8::/32,0.0.0.0/0,192.0.2.1",
        "[\"10.0.0.0/8\", \"2001:db8::/32\", \"0.0.0.0/0\", \"192.0.2.1\"]",
    ),
    ("tls.organization=Trust \"A\" & Söhne", "'Trust \"A\" & Söhne'"),
    ("tls.organization=true", "\"true\""),
    ("services.disabled=monitor,scheduler", "[\"monitor\", \"scheduler\"]"),
    (
        "services.extra=[{ name = 'a-1', command = ['x', 'y z'], port = 9000 }]",
        "[{ name = \"a-1\", command = [\"x\", \"y z\"], port = 9000 }]",
    ),
    ("services.extra=[]", "[]"),
    ("logging.keep_days=0", "0"),
    ("workers.max_memory_kb=500000", "500000"),
    ("workers.max_memory_kb=0", "0"),
    ("site.timezone=America/Argentina/Ushuaia", "\"America/Argentina/Ushuaia\""),
    ("site.timezone=UTC", "\"UTC\""),
    ("site.institution_url=https://www.example.org/?a=b%20c", "\"https://www.example.org/?a=b%20c\""),
    ("site.extra_strings=/srv/a b/*.xml", "[\"/srv/a b/*.xml\"]"),
    ("config.site.VERSION=1.10", "\"1.10\""),
    ("config.site.DAY=2024-01-01", "\"2024-01-01\""),
    ("config.export.RECIPIENTS=[\"a\", \"b\"]", "[\"a\", \"b\"]"),
    ("config.\"recipient:a\".PUSH=true", "\"true\""),
    ("config.recipient:a.PUSH=true", "\"true\""),
];

#[test]
fn one_entry_needs_no_brackets() {
    let read = |value: &str| {
        let sources = Sources {
            files: vec![("/p.toml".into(), format!("[database]\nlisten = {value}\n"))],
            ..Sources::default()
        };
        Settings::resolve(&sources).map(|resolved| resolved.settings.get("database.listen").unwrap())
    };
    assert_eq!(read("'192.0.2.10'").unwrap(), "[\"192.0.2.10\"]");
    assert_eq!(read("['192.0.2.10', '2001:db8::10']").unwrap(), "[\"192.0.2.10\", \"2001:db8::10\"]");
    assert_eq!(read("''").unwrap(), "[]");
    assert!(read("['*', '192.0.2.10']").unwrap_err().to_string().contains("keep one or the other"));
}

#[test]
fn flags_are_read() {
    for (assignment, expected) in GOOD {
        let (name, _) = assignment.split_once('=').expect("each one has a value");
        let value = resolved(&flags(&[assignment])).settings.get(name);
        assert_eq!(value.as_deref(), Some(*expected), "{assignment}");
    }
}

/// A file, and what is told about it.
const BAD: &[(&str, &str)] = &[
    ("web.https_prot = 1", "1: web.https_prot: unknown key; nearest: web.https_port"),
    ("https_port = 1", "1: https_port: unknown key; nearest: web.https_port"),
    ("broker.https_port = 1", "1: broker.https_port: unknown key; nearest: web.https_port"),
    ("web.port = 1", "1: web.port: unknown key; nearest: web.https_port"),
    ("web.\"a b\" = 1", "1: web.\"a b\": unknown key"),
    ("[wbe]\nhttps_port = 1", "1: wbe: unknown section; nearest: [web]"),
    ("\nweb = 1", "2: web: is a section: write [web] once, and its keys below it"),
    ("[[web]]", "1: web: is a section: write [web] once, and its keys below it"),
    ("[web.path]", "1: web.path: is a key, not a section"),
    ("[web]\nhttps_port = 70000", "2: web.https_port: 70000 is not a port; allowed: 1 to 65535, for example 8443"),
    (
        "web.https_port = '443'",
        "1: web.https_port: is a string, not a whole number; allowed: 1 to 65535, for example 8443",
    ),
    (
        "web.server_names = 'a'",
        "1: web.server_names: is a string, not a list; allowed: a list, each entry a host name or an IP address, for example [\"camcops.example.org\"]",
    ),
    ("web.server_names = ['a', 'b', 'a']", "entry 3 repeats an earlier one"),
    ("web.server_names = ['10.0.0.256']", "entry 1: is neither a host name nor an IP address"),
    ("web.server_names = ['a_b']", "is neither a host name"),
    ("web.server_names = ['-a']", "is neither a host name"),
    ("web.listen = []", "1: web.listen: is empty, so the site could not be reached"),
    ("web.path = 'a'", "does not begin with a slash"),
    ("web.path = '/a/'", "a slash at the end"),
    ("web.path = '/a//b'", "an empty segment"),
    ("web.path = '/a/../b'", "a segment . or .."),
    ("web.path = '/a b'", "needs escaping"),
    ("web.path = '/.well-known/x'", "/.well-known is reserved"),
    ("web.bind = '0.0.0.0:8000'", "0.0.0.0 can be reached from other machines"),
    ("web.bind = '0.0.0.0:8443'\nweb.frontend = 'none'\nweb.path = '/x'", "needs a web server in front"),
    (
        "web.bind = '0.0.0.0:8443'\nweb.frontend = 'none'\ntls.chain = '/x'",
        "put the intermediate certificates into tls.certificate",
    ),
    ("web.bind = '127.0.0.1:80'", "does not run as root"),
    ("web.bind = 'localhost:8000'", "is not an address and a port"),
    ("web.workers = 0", "0 is too small; allowed: \"auto\" or 1 to 256, for example 4"),
    ("web.workers = 257", "257 is too large"),
    ("web.trusted_proxies = ['10.1.0.0/8']", "the network is 10.0.0.0/8"),
    ("web.trusted_proxies = ['10.0.0.0/33']", "is neither an IP address nor a network"),
    ("web.trusted_proxies = ['10.0.0.0/+8']", "is neither an IP address nor a network"),
    ("web.http_port = 443", "1: web.http_port: is 443, which is also web.https_port"),
    ("web.bind = '[::1]:8000'\nmonitor.port = 8000", "2: monitor.port: is 8000, which is also web.bind"),
    ("web.frontend = 'nginx'", "\"nginx\" is not one of the choices; allowed: \"apache\" or \"none\""),
    ("account.uid = 990", "1: account.uid: is only for the dedicated account"),
    (
        "database.mode = 'external'",
        "1: database.host: is needed with database.mode = \"external\"; for example \"db.example.org\"",
    ),
    ("database.host = 'db'", "1: database.host: is another machine"),
    ("database.tls = 'required'", "1: database.tls: is only for an external database"),
    ("database.name = 'a-b'", "contains '-'"),
    ("database.name = 'MySQL'", "belongs to the database server itself"),
    ("database.user = 'root'", "root is the administrator"),
    ("database.name = 'root'", "would make root the user"),
    (
        "database.name = 'a23456789012345678901234567890123'",
        "1: database.user: is needed with a database.name of more than 32 characters",
    ),
    (
        "[database]\nmode = 'external'\nhost = 'db'\ntls = 'verify'",
        "4: database.tls_ca: is needed with database.tls = \"verify\"",
    ),
    ("broker.mode = 'external'", "1: broker.host: is needed with broker.mode = \"external\""),
    ("broker.host = 'mq'", "1: broker.host: is another machine"),
    ("broker.tls = true", "1: broker.tls: is only for an external broker"),
    ("broker.consumer_timeout_ms = 1000", "allowed: 300000 or more"),
    ("tls.mode = 'files'", "1: tls.key: is needed with tls.mode = \"files\""),
    ("tls.country = 'gb'", "allowed: two capital letters"),
    ("tls.organization = \"a\\nb\"", "contains the control character U+000A"),
    ("tls.organization = \"a\\u2028b\"", "contains the control character U+2028"),
    (
        "workers.max_memory_kb = 100000",
        "would restart a worker process after every task, because each one needs about 390 MB; allowed: 0 (none) or 500000 or more",
    ),
    ("site.timezone = 'Europe/'", "does not look like a time zone"),
    ("site.timezone = '../London'", "does not look like a time zone"),
    ("site.language = 'english'", "is not a language with its country"),
    ("site.institution_url = 'www.example.org'", "is not the address of a web page"),
    ("logging.keep_days = 14.0", "is a number with a fraction, not a whole number"),
    (
        "database.password = 'x'",
        "passwords are not settings: write it to a file that only root can read, and name the file in database.password_file",
    ),
    ("web.password = 'x'", "name the file in database.password_file or broker.password_file or monitor.password_file"),
    ("database.password_fil = '/x'", "unknown key; nearest: database.password_file"),
    (
        "config.sit.A = 1",
        "1: config.sit: is not a section of camcops.conf; allowed: site, server, export, sms_backend:kapow, sms_backend:twilio, or recipient:NAME of A-Z a-z 0-9 _ -; nearest: [config.site]",
    ),
    ("config.site.a_b = 1", "nearest: config.site.A_B"),
    ("config.site = 1", "1: config.site: is a section: write [config.site]"),
    ("config = 1", "1: config: is a section"),
    ("config.site.A = {}", "is a table, not one of these; allowed: a string"),
    ("config.site.A.B = 1", "1: config.site.A: is a key, not a section"),
    ("config.site.A = [1]", "is a whole number, not a string"),
    ("[web]\npath = '/a'\npath = '/b'", "3: path is set twice in this file"),
    ("[web]\n[tls]\n[web]", "3: web is set twice in this file"),
    ("[web]\n\nhttps_port = ", "3: is not TOML: "),
    ("[web", "1: is not TOML: "),
    ("monitor.port = 80", "1: monitor.port: is below 1024"),
    (
        "[[services.extra]]\nname = 'server'\ncommand = ['/x']",
        "2: services.extra[server].name: \"server\" is reserved; allowed: up to 24",
    ),
    ("[[services.extra]]\nname = 'a'", "1: services.extra[a].command: is missing; allowed: a list of words"),
    (
        "[[services.extra]]\nname = 'a'\ncommand = ['bin/x']",
        "3: services.extra[a].command: \"bin/x\" is neither an absolute path nor a name",
    ),
    (
        "[[services.extra]]\nname = 'a'\ncommand = ['/x']\nport = 90000",
        "4: services.extra[a].port: 90000 is not a port; allowed: 1 to 65535, for example 9000",
    ),
    (
        "[[services.extra]]\nname = 'a'\ncommand = ['/x']\nprot = 9000",
        "4: services.extra[a].prot: unknown key; nearest: port",
    ),
    (
        "[[services.extra]]\nname = 'a'\ncommand = ['/x']\npath = '/a'",
        "4: services.extra[a].path: needs a port or a socket to pass requests to",
    ),
    (
        "[[services.extra]]\nname = 'a'\ncommand = ['/x']\n[[services.extra]]\nname = 'a'\ncommand = ['/y']",
        "5: services.extra[a].name: is used twice in this file",
    ),
    (
        "[[services.extra]]\nname = 'a'\ncommand = ['/x']\npath = '/api/a'\nport = 9000",
        "1: services.extra: a: /api/a is used by CamCOPS itself",
    ),
    (
        "[[services.extra]]\nname = 'a'\ncommand = ['/x']\nport = 443\nuser = 'root'",
        "1: services.extra: a uses port 443, which is also web.https_port",
    ),
    (
        "services.extra = ['a']",
        "1: services.extra: entry 1: is a string, not a table; allowed: a list, each entry a table",
    ),
    (
        "services.disabled = ['monitr']",
        "1: services.disabled: names \"monitr\", but there is no such service; there are server, workers",
    ),
    ("services.manager = 'x'", "allowed: \"auto\", \"systemd\" or \"supervisor\""),
];

#[test]
fn what_is_wrong_is_told() {
    for (text, expected) in BAD {
        let told = told(&files(&[text]));
        assert!(told.starts_with("/etc/0.toml:") && told.contains(expected), "{text}\n{told}\n{expected}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let sources = Sources {
        environment: variables(&[("CAMCOPS_PROVISION_WEB__HTTPS_PORT", "x")]).environment,
        overrides: flags(&["web.pth=/a", "web.path", "tls.days=0"]).overrides,
        ..files(&["[web]\nhttps_prot = 1\n[wbe]\n[tls]\nmode = 'files'\n", "[web", "[web]\n\nworkers = 0"])
    };
    let expected = "\
/etc/0.toml:2: web.https_prot: unknown key; nearest: web.https_port
/etc/0.toml:3: wbe: unknown section; nearest: [web]
/etc/1.toml:1: is not TOML: unclosed table, expected `]`
/etc/2.toml:3: web.workers: 0 is too small; allowed: \"auto\" or 1 to 256, for example 4
CAMCOPS_PROVISION_WEB__HTTPS_PORT: web.https_port: is a string, not a whole number; allowed: 1 to 65535, for example 8443
--set: web.pth: unknown key; nearest: web.path
--set: web.path: has no value: write KEY=VALUE
--set: tls.days: 0 is too small; allowed: 1 to 825, for example 90";
    assert_eq!(told(&sources), expected);
}

#[test]
fn the_order_of_a_file_is_the_order_of_its_problems() {
    let told = told(&files(&["[web]\na = 1\n[tls]\nb = 1\n[web.c]\n[tls.d]\n"]));
    let lines: Vec<&str> = told.lines().map(|line| &line[..13]).collect();
    assert_eq!(lines, ["/etc/0.toml:2", "/etc/0.toml:4", "/etc/0.toml:5", "/etc/0.toml:6"]);
}

#[test]
fn later_sources_win_and_are_named() {
    let mut sources = files(&["web.https_port = 1\nweb.timeout_s = 31", "\nweb.https_port = 2\nweb.workers = 2"]);
    sources.environment = variables(&[
        ("CAMCOPS_PROVISION_WEB__WORKERS", "3"),
        ("CAMCOPS_PROVISION_WEB__SERVER_NAMES", "a,b"),
        ("CAMCOPS_PROVISION_CONFIG__SITE__A__B", "c"),
        ("CAMCOPS_PROVISION_ROOT", "reserved"),
        ("HOME__X", "/"),
    ])
    .environment;
    sources.overrides = flags(&["web.server_names=c"]).overrides;
    let resolved = resolved(&sources);
    let entry = |name: &str| {
        let entry = resolved.entries().find(|entry| entry.key == name).expect("a known key");
        format!("{} {}", entry.value, entry.origin)
    };
    assert_eq!(entry("web.https_port"), "2 /etc/1.toml:2");
    assert_eq!(entry("web.timeout_s"), "31 /etc/0.toml:2");
    assert_eq!(entry("web.workers"), "3 CAMCOPS_PROVISION_WEB__WORKERS");
    assert_eq!(entry("web.server_names"), "[\"c\"] --set");
    assert_eq!(entry("web.path"), "\"/\" default");
    assert_eq!(entry("config.site.A__B"), "\"c\" CAMCOPS_PROVISION_CONFIG__SITE__A__B");
    assert_eq!(resolved.entries().count(), resolved.origins.len());
}

#[test]
fn every_key_takes_its_example_from_its_variable() {
    // What some of the examples need beside them.
    let base = "camcops.wheelhouse = '/wheelhouse'\naccount.user = 'camcops'\n\
        network = { https_proxy = 'http://proxy:1', pip_index_url = 'https://index/' }\n\
        database = { mode = 'external', host = 'db', tls_ca = '/ca.pem', readonly_user = 'reports' }\n\
        superuser.username = 'admin'\n\
        broker = { mode = 'external', host = 'mq' }\n\
        tls = { certificate = '/tls.crt', key = '/tls.key' }";
    for key in all_keys() {
        let sources = Sources { environment: vec![(key.variable(), key.example.into())], ..files(&[base]) };
        let resolved = resolved(&sources);
        assert_eq!(resolved.settings.get(key.name).as_deref(), Some(key.example));
        assert_eq!(resolved.origins[key.name], Origin::Environment(key.variable()));
    }
}

#[test]
fn unknown_variables_are_told() {
    let told =
        told(&variables(&[("CAMCOPS_PROVISION_WEB__PTH", "/a"), ("CAMCOPS_PROVISION_DATABASE__PASSWORD", "hunter2")]));
    assert!(told.starts_with("CAMCOPS_PROVISION_WEB__PTH: web.pth: unknown key; nearest: web.path\n"));
    assert!(told.contains("database.password: passwords are not settings"));
}

#[test]
fn nothing_secret_is_shown() {
    let secret = "hunter2";
    let text = format!(
        "[database]\npassword = '{secret}'\npassword_file = '{secret}'\nhsot = '{secret}'\n\
         [config.site]\nA = \"{secret}\\n\"\nB = [1, '{secret}']\nC = {{ d = '{secret}' }}\n"
    );
    let in_file = told(&files(&[&text]));
    assert_eq!(in_file.lines().count(), 6);
    assert!(!in_file.contains(secret), "{in_file}");

    let mistyped = told(&flags(&[&format!("database.password {secret}")]));
    assert!(!mistyped.contains(secret), "{mistyped}");

    let resolved = resolved(&files(&[&format!("config.site.A = '{secret}'")]));
    assert!(!format!("{resolved:?}").contains(secret));
    assert!(resolved.entries().all(|entry| entry.private == entry.key.starts_with("config.")));
}

#[test]
fn problems_are_json() {
    let problems = Settings::resolve(&files(&["web.https_prot = 1"])).expect_err("an unknown key");
    let json = serde_json::to_value(&problems).expect("problems are plain data");
    assert_eq!(
        json,
        serde_json::json!([{
            "place": { "file": { "path": "/etc/0.toml", "line": 1 } },
            "key": "web.https_prot", "what": "unknown key",
            "allowed": null, "nearest": "web.https_port", "example": null,
        }])
    );
}

#[test]
fn what_depends_on_the_instance_is_filled_in() {
    let settings = Settings::default();
    assert_eq!(settings.database.user_or("camcops_two"), "camcops_two");
    assert_eq!(settings.broker.vhost_or("camcops_two"), "camcops_two");
    assert_eq!(settings.broker.port_number(), 5672);
    let external = flags(&["broker.mode=external", "broker.host=mq", "broker.tls=true", "database.name=a"]);
    let settings = resolved(&external).settings;
    assert_eq!(settings.broker.port_number(), 5671);
    assert_eq!(settings.database.user_or("camcops"), "a");
    assert_eq!(settings.web.workers, Auto::Auto);
}

#[test]
fn passed_through_values_keep_their_kind() {
    let text =
        "[config.site]\nA = 'x % y'\nB = 1\nC = 1.5\nD = false\nE = ['a', 'b']\n[config.\"recipient:r\"]\nF = ''";
    let config = resolved(&files(&[text])).settings.config;
    let line = |text: &str| ConfigValue::Line(text.into());
    let list = ConfigValue::List(vec!["a".into(), "b".into()]);
    let expected = [("A", line("x % y")), ("B", line("1")), ("C", line("1.5")), ("D", line("false")), ("E", list)];
    assert_eq!(config["site"], expected.map(|(key, value)| (key.to_owned(), value)).into());
    assert_eq!(config["recipient:r"]["F"], line(""));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".*", name in ".*", value in ".*") {
        let sources = Sources {
            environment: vec![(format!("{VARIABLE_PREFIX}{name}"), value.clone())],
            overrides: vec![format!("{name}={value}"), value],
            ..files(&[&text])
        };
        if let Err(problems) = Settings::resolve(&sources) {
            prop_assert!(!problems.0.is_empty());
        }
    }

    #[test]
    fn damaged_examples_never_panic(cut in 0_usize..12_000, junk in "[\\[\\]{}=.\"'#\n a-z0-9]{0,12}") {
        let mut text = example().replace("\n#", "\n");
        let at = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.insert_str(at, &junk);
        _ = Settings::resolve(&files(&[&text]));
    }

    #[test]
    fn any_one_line_text_survives(text in "[^\\p{Cc}\u{2028}\u{2029}]{0,20}") {
        let quoted = Value::from(text.as_str()).to_string();
        let resolved = resolved(&files(&[&format!("config.site.A = {quoted}")]));
        prop_assert_eq!(&resolved.settings.config["site"]["A"], &ConfigValue::Line(text));
    }
}

#[test]
fn extra_services_of_several_files_stand_beside_each_other() {
    let entry = |name: &str, program: &str| format!("[[services.extra]]\nname = '{name}'\ncommand = ['{program}']\n");
    let first = entry("a", "/x") + &entry("b", "/x");
    let second = entry("a", "/y") + "[services]\ndisabled = ['b']\n";
    let services = resolved(&files(&[&first, &second])).settings.services;
    let all: Vec<(&str, &str)> =
        services.extra.iter().map(|extra| (extra.name.as_str(), extra.command.program())).collect();
    assert_eq!(all, [("b", "/x"), ("a", "/y")]);
    let wanted: Vec<&str> = services.extras().map(|extra| extra.name.as_str()).collect();
    assert_eq!(wanted, ["a"]);
}

#[test]
fn certbot_needs_a_way_a_name_and_an_agreement() {
    let expected = [
        ("", "tls.acme_agree_tos", "read them"),
        ("tls.acme_agree_tos = true\nweb.http_port = 0", "web.http_port", "port 80"),
        ("tls.acme_agree_tos = true\nweb.frontend = 'none'", "tls.mode", "in front"),
        (
            "tls.acme_agree_tos = true\nweb.server_names = ['a.example.org', '192.0.2.1']",
            "web.server_names",
            "needs names",
        ),
        ("tls.acme_agree_tos = true\ntls.acme_server = 'http://acme.test/'", "tls.acme_server", "https://"),
        ("tls.acme_agree_tos = true\ntls.acme_email = '-x@example.org'", "tls.acme_email", "mail"),
    ];
    for (more, key, words) in expected {
        let told = told(&files(&[&format!("tls.mode = 'certbot'\n{more}")]));
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(key) && told.contains(words), "{told}");
    }
    resolved(&files(&["tls.mode = 'certbot'\ntls.acme_agree_tos = true"]));
}
