//! The template, judged by CamCOPS's own reader.

use crate::judge::{camcops_python, script};
use camcops_provision::camcops_conf::{ConfSection, Ini, KEYS, ValueKind};
use camcops_provision::cli::Cli;
use camcops_provision::resource::State;
use camcops_provision::session::Session;
use clap::Parser;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// camcops.conf of an empty machine with these settings and this cookie secret.
pub fn written(settings: &[&str], cookie: &str) -> String {
    let root = tempfile::tempdir().unwrap();
    let secrets = root.path().join("etc/camcops/secrets/camcops");
    fs::create_dir_all(&secrets).unwrap();
    fs::write(secrets.join("cookie"), cookie).unwrap();
    fs::write(secrets.join("broker"), "p@ss%").unwrap();
    let mut arguments = vec!["camcops-provision", "--root", root.path().to_str().unwrap()];
    for setting in settings {
        arguments.extend(["--set", setting]);
    }
    arguments.push("plan");
    let site = Session::open(&Cli::parse_from(arguments).global).unwrap();
    let found = site.read_existing(&site.journal().unwrap()).unwrap();
    let recipe = site.recipe(&found).unwrap();
    let file = recipe.wanted.iter().find(|wanted| wanted.resource.name() == site.layout.config).unwrap();
    let State::Present(facets) = &file.state else { panic!("it is wanted") };
    let bytes = facets.content().unwrap().bytes().unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The settings of a site at the root, on a socket, with everything that differs from a plain one.
const ROOT: &[&str] = &[
    "web.server_names=[\"camcops.example.org\"]",
    "web.https_port=8443",
    "workers.concurrency=2",
    "workers.max_memory_kb=800000",
    "site.institution_url=https://www.example.org/100%",
    "site.timezone=Europe/London",
    "site.extra_strings=[\"/srv/camcops/more strings/*.xml\"]",
];
const COOKIE: &str = "s%cr\"e't;#=";

fn root() -> String {
    written(ROOT, COOKIE)
}

fn judge(files: &[&Path]) -> (bool, Vec<Value>) {
    let answer = Command::new(camcops_python()).arg(script("camcops_config.py")).args(files).output().unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    let verdicts = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (answer.status.success(), verdicts)
}

#[test]
fn every_key_is_written_once() {
    let text = root();
    let file = Ini::parse(&text);
    assert_eq!(file.problems(), []);
    let written: Vec<_> =
        file.entries().iter().map(|e| (ConfSection::of(&e.section).unwrap(), e.key.clone())).collect();
    for key in KEYS {
        let wanted = matches!(key.section, ConfSection::Site | ConfSection::Server | ConfSection::Export)
            && key.kind != ValueKind::Unread;
        let times = written.iter().filter(|w| w.0 == key.section && w.1 == key.name).count();
        assert_eq!(times, usize::from(wanted), "{}", key.name);
    }
    assert_eq!(Ini::parse(&text).to_string(), text);
    assert!(text.starts_with("# Managed by camcops-provision (instance camcops)"));
}

#[test]
fn what_we_leave_alone_is_upstream_s_default() {
    let ours = [
        "EXTERNAL_URL_SCHEME",
        "EXTERNAL_SERVER_NAME",
        "GUNICORN_TIMEOUT_S",
        "CHERRYPY_SERVER_NAME",
        "CELERY_BROKER_URL",
        "LOCAL_INSTITUTION_URL",
        "SCHEDULE_TIMEZONE",
    ];
    let file = Ini::parse(&root());
    for entry in file.entries() {
        let key = camcops_provision::camcops_conf::keys::find_key(&entry.section, &entry.key).unwrap();
        if !key.default.is_empty() && !ours.contains(&key.name) {
            assert_eq!(entry.value.trim(), key.default, "{}", key.name);
        }
    }
}

#[test]
fn camcops_reads_it_without_a_complaint() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let root = root();
    let good = [
        write("root-socket", &root),
        write(
            "root-tcp",
            &written(
                &[
                    "web.bind=127.0.0.1:8100",
                    "workers.concurrency=2",
                    "database.mode=external",
                    "database.host=db.example.org",
                    "database.tls=required",
                ],
                COOKIE,
            ),
        ),
        write(
            "path-socket",
            &written(
                &[
                    "web.path=/camcops",
                    "database.mode=external",
                    "database.host=db.example.org",
                    "database.tls=verify",
                    "database.tls_ca=/etc/ssl/certs/ca-certificates.crt",
                ],
                COOKIE,
            ),
        ),
        write("path-tcp", &written(&["web.path=/camcops", "web.bind=127.0.0.1:8100"], COOKIE)),
    ];
    let mut recipient = Ini::parse(&root);
    for (section, key, value) in [
        ("export", "RECIPIENTS", "\nx"),
        ("export", "SCHEDULE", "\n0 1 * * *  x"),
        ("recipient:x", "TRANSMISSION_METHOD", "database"),
        ("recipient:x", "DB_URL", "mysql+pymysql:///copy"),
        ("recipient:x", "ALL_GROUPS", "True"),
    ] {
        recipient.set(section, key, value).unwrap();
    }
    let good: Vec<_> = good.into_iter().chain([write("recipient", &recipient.to_string())]).collect();

    let with = |key: &str, value: &str| {
        let mut file = Ini::parse(&root);
        let section = file.entries().iter().find(|e| e.key == key).map(|e| e.section.clone());
        file.set(&section.unwrap_or("site".into()), key, value).unwrap();
        write(key, &file.to_string())
    };
    let mut short = Ini::parse(&root);
    short.remove("site", "LOCKOUT_THRESHOLD");
    let bad = [
        with("EMAIL_PORT", "many"),
        with("DB_ECHO", "perhaps"),
        with("LANGUAGE", "xx_XX"),
        with("MFA_METHODS", ""),
        with("LOCAL_INSTITUTION_URL", "https://x/%20"),
        with("DB_URL", "mysql+pymysql://u:a%%40b@h/d"),
        with("TRUSTED_PROXY_HEADERS", "\nHTTP_X_NONSENSE"),
        with("EMAIL_HOSTS", "mail.example.org"),
        with("EXPORT_LOCKDIR", ""),
        write("less", &short.to_string()),
        write("twice", &root.replace("DB_ECHO = False", "DB_ECHO = False\ndb_echo = True")),
    ];
    let paths = |files: &[std::path::PathBuf]| judge(&files.iter().map(|f| f.as_path()).collect::<Vec<_>>());

    let (accepted, verdicts) = paths(&good);
    for verdict in &verdicts {
        assert_eq!(verdict["complaints"], json!([]), "{}", verdict["file"]);
    }
    assert!(accepted);
    assert_eq!(verdicts.len(), good.len());

    let [a, b, c, d, e] = &verdicts[..] else { panic!("five verdicts") };
    assert_eq!(a["unix_domain_socket"], "/run/camcops/camcops.socket");
    assert_eq!(b["unix_domain_socket"], Value::Null);
    assert_eq!((&b["host"], &b["port"]), (&json!("127.0.0.1"), &json!(8100)));
    assert_eq!((&a["proxy_script_name"], &a["external_script_name"]), (&Value::Null, &json!("")));
    assert_eq!((&d["proxy_script_name"], &d["external_script_name"]), (&json!("/camcops"), &json!("/camcops")));
    assert_eq!(a["external_server_port"], 8443);
    assert_eq!(a["session_cookie_secret"], "s%cr\"e't;#=");
    assert_eq!(a["celery_broker_url"], "amqp://camcops:p%40ss%25@127.0.0.1:5672/camcops");
    assert_eq!(a["celery_beat_extra_args"], json!(["--pidfile="]));
    assert_eq!(
        a["celery_worker_extra_args"],
        json!(["--concurrency=2", "--max-tasks-per-child=1000", "--max-memory-per-child=800000"])
    );
    assert_eq!(b["celery_worker_extra_args"], json!(["--concurrency=2", "--max-tasks-per-child=1000"]));
    assert_eq!(
        a["extra_string_files"],
        json!([
            "/usr/share/camcops/extra_strings/*.xml",
            "/srv/camcops/extra_strings/*.xml",
            "/srv/camcops/more strings/*.xml"
        ])
    );
    let connect = |extra: Value| {
        let mut all =
            json!({"database": "camcops", "charset": "utf8mb4", "read_default_file": "/etc/camcops/camcops.my.cnf"});
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        all
    };
    assert_eq!(a["connect"], connect(json!({"ssl_disabled": "true"})));
    assert_eq!(b["connect"], connect(json!({"ssl": {"check_hostname": false}})));
    assert_eq!(c["connect"], connect(json!({"ssl": {"ca": "/etc/ssl/certs/ca-certificates.crt"}})));
    assert_eq!(e["export_recipient_names"], json!(["x"]));

    let (accepted, verdicts) = paths(&bad);
    assert!(!accepted);
    assert_eq!(verdicts.len(), bad.len());
    for verdict in &verdicts {
        assert_ne!(verdict["complaints"], json!([]), "{}", verdict["file"]);
    }
}
