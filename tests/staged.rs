//! What an administrator relies on, shown on staged trees: every run converges, a second run changes nothing, drift is
//! shown and repaired, and `uninstall` leaves the tree as it was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod common;

use common::tier::one_in;
use common::{Planned, Ran, Staged, Tree, Who, each, give_to, is_root};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};

/// One combination of what an installation can be.
#[derive(Debug, Clone)]
struct Case {
    who: Who,
    flavour: &'static str,
    manager: &'static str,
    path: &'static str,
    instances: &'static [&'static str],
    accounts: bool,
}

impl Case {
    fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        for &who in Who::all() {
            for flavour in ["debian", "rhel"] {
                for manager in ["systemd", "supervisor"] {
                    for path in ["/", "/camcops"] {
                        for instances in [&["camcops"][..], &["camcops", "two"]] {
                            for accounts in [false, true] {
                                cases.push(Case { who, flavour, manager, path, instances, accounts });
                            }
                        }
                    }
                }
            }
        }
        cases
    }

    fn tree(&self) -> Staged {
        let staged = Staged::of(self.who, self.flavour)
            .set(&[&format!("services.manager={}", self.manager), &format!("web.path={}", self.path)]);
        match self.accounts {
            true => staged.with_accounts(),
            false => staged,
        }
    }

    /// Installs every instance, and says what was made for it.
    fn install(&self, staged: &Staged) -> Vec<(&'static str, Vec<Planned>)> {
        self.instances
            .iter()
            .map(|instance| {
                let planned = staged.planned(instance);
                staged.on(instance, &["install"]).exits(0);
                (*instance, planned)
            })
            .collect()
    }
}

/// Things of somebody else where ours belong, with modes that are not ours.
fn lived_in(staged: &Staged, flavour: &str) {
    let files = match flavour {
        "rhel" => ["etc/httpd/conf.d/camcops.conf", "etc/supervisord.d/camcops.ini"],
        _ => ["etc/apache2/sites-available/camcops.conf", "etc/supervisor/conf.d/camcops.conf"],
    };
    for file in files {
        staged.write(file, "# by hand\n");
        staged.chmod(file, 0o604);
    }
    staged.write("etc/camcops/camcops.conf", "# by hand\n[site]\nLANGUAGE = da_DK\nMINE = 1\n");
    staged.chmod("etc/camcops/camcops.conf", 0o666);
    staged.chmod("etc/camcops", 0o711);
    staged.write("etc/camcops/notes.txt", "not ours\n");
    staged.directory("srv/camcops/images");
    staged.chmod("srv/camcops", 0o701);
    staged.write("srv/camcops/images/logo.png", "a picture\n");
    staged.directory("usr/bin");
    symlink("elsewhere", staged.at("usr/bin/camcops_server")).unwrap();
    staged.give(&staged.at("usr/bin/camcops_server"));
    staged.directory("var/tmp");
    staged.chmod("var/tmp", 0o1777);
    if is_root() && staged.who == Who::Root {
        give_to(&staged.at("srv/camcops"), 1234, 1235);
        give_to(&staged.at("etc/camcops/camcops.conf"), 1234, 1235);
    }
}

#[test]
fn install_twice_then_uninstall_for_every_combination() {
    each(&one_in(5).of(Case::all()), |case| {
        let staged = case.tree();
        let first = staged.tree().untimed();
        case.install(&staged);
        let installed = staged.tree();
        for instance in case.instances {
            let again = staged.on(instance, &["install"]).exits(0);
            assert_eq!(again.out, "nothing to do\n");
            let plan = staged.on(instance, &["plan", "--exit-code"]).exits(0);
            assert_eq!(plan.out, "nothing to do\n");
            staged.on(instance, &["status", "--exit-code"]).exits(0);
        }
        installed.assert_same(&staged.tree(), "the second install");
        for instance in case.instances {
            staged.on(instance, &["uninstall"]).exits(0);
        }
        first.assert_same(&staged.tree().untimed(), "uninstall");
    });
}

#[test]
fn what_was_there_before_comes_back() {
    each(&one_in(5).of(Case::all()), |case| {
        let staged = case.tree();
        lived_in(&staged, case.flavour);
        let first = staged.tree().untimed();
        for instance in case.instances {
            staged.on(instance, &["install", "--adopt"]).exits(0);
        }
        let installed = staged.tree();
        let again = staged.run(&["install"]).exits(0);
        assert_eq!(again.out, "nothing to do\n");
        installed.assert_same(&staged.tree(), "the second install");
        for instance in case.instances.iter().rev() {
            staged.on(instance, &["uninstall"]).exits(0);
        }
        first.assert_same(&staged.tree().untimed(), "uninstall");
    });
}

#[test]
fn what_is_in_the_way_is_listed_whole_and_nothing_changes() {
    for &who in Who::all() {
        let staged = Staged::of(who, "debian");
        staged.write("usr/bin/camcops_server", "#!/bin/sh\n");
        staged.write("etc/camcops/camcops.conf", "[site]\n");
        staged.write("srv/camcops", "a file where a directory belongs\n");
        let before = staged.tree();
        for arguments in [&["install"][..], &["plan"], &["plan", "--exit-code", "--json"]] {
            let ran = staged.run(arguments);
            for path in ["usr/bin/camcops_server", "etc/camcops/camcops.conf", "srv/camcops"] {
                assert!(ran.said().contains(path), "{path} is not named by {ran}");
            }
            let code = match arguments {
                ["install"] => 73,
                ["plan"] => 0,
                _ => 2,
            };
            ran.exits(code);
            before.assert_same(&staged.tree(), "a refused run");
        }
        // A directory's place can't be taken over.
        staged.run(&["install", "--adopt"]).exits(73).says("srv/camcops");
        before.assert_same(&staged.tree(), "a refused run");
    }
}

/// What happens to one managed thing behind the program's back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Drift {
    Mode,
    Owner,
    Content,
    Gone,
}

impl Drift {
    /// Whether this can happen to it so that `install` has something to repair.
    fn fits(self, thing: &Planned) -> bool {
        // What is read back from the disk and not made from the settings has its own tests.
        let read_back = ["secrets", "certificate"].contains(&thing.part.as_str())
            || thing.path.starts_with("/etc/camcops/") && thing.path.ends_with(".conf");
        match self {
            Drift::Mode => thing.wanted.contains_key("mode"),
            Drift::Owner => is_root() && thing.wanted.contains_key("owner"),
            Drift::Content => thing.kind == "link" || thing.wanted.contains_key("content") && !read_back,
            Drift::Gone => thing.kind != "directory" && !read_back,
        }
    }

    fn facet(self, thing: &Planned) -> &'static str {
        match self {
            Drift::Mode => "mode",
            Drift::Owner => "owner",
            Drift::Content if thing.kind == "link" => "target",
            Drift::Content => "content",
            Drift::Gone => "presence",
        }
    }

    /// Does it, and says what the file had before, if that must not be lost.
    fn happen(self, staged: &Staged, thing: &Planned) -> Option<String> {
        let path = staged.at(&thing.path);
        match self {
            Drift::Mode => {
                let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
                staged.chmod(&thing.path, mode ^ 0o005);
                None
            }
            Drift::Owner => {
                // A stranger's directory among those of the service is refused, not repaired.
                let wanted = thing.wanted["owner"].as_str().unwrap();
                let uid = if wanted.starts_with("root:") { 1234 } else { 0 };
                give_to(&path, uid, 1235);
                None
            }
            Drift::Content if thing.kind == "link" => {
                fs::remove_file(&path).unwrap();
                symlink("/elsewhere", &path).unwrap();
                staged.give(&path);
                None
            }
            Drift::Content => {
                let text = format!("{}# edited\n", staged.read(&thing.path));
                fs::write(&path, &text).unwrap();
                Some(text)
            }
            Drift::Gone => {
                fs::remove_file(&path).unwrap();
                None
            }
        }
    }
}

/// What a plan says: path and facet of each change.
fn shown(ran: &Ran) -> BTreeSet<(String, String)> {
    let document = ran.json();
    let changes = document["plan"]["changes"].as_array().unwrap().clone();
    let mut all = BTreeSet::new();
    for change in changes {
        let path = change["change"]["resource"]["name"].as_str().unwrap().to_owned();
        for facet in change["facets"].as_array().unwrap() {
            all.insert((path.clone(), facet.as_str().unwrap().to_owned()));
        }
    }
    all
}

fn drift_is_shown_and_repaired(staged: &Staged, instance: &str, drift: Drift, things: &[&Planned]) {
    let before = staged.tree().untimed();
    let expected: BTreeSet<(String, String)> =
        things.iter().map(|thing| (thing.path.clone(), drift.facet(thing).to_owned())).collect();
    let kept: Vec<String> = things.iter().filter_map(|thing| drift.happen(staged, thing)).collect();
    let plan = staged.on(instance, &["plan", "--exit-code", "--json"]).exits(2);
    let wrong: Vec<_> = expected.symmetric_difference(&shown(&plan)).cloned().collect();
    assert!(wrong.is_empty(), "{drift:?}: not shown, or shown too much: {wrong:?}");
    let text = staged.on(instance, &["plan", "--diff", "--exit-code"]).exits(2);
    for thing in things {
        assert!(text.out.contains(&thing.path), "{} is not in {text}", thing.path);
    }
    let site = |thing: &&Planned| thing.part == "web" && thing.kind == "file";
    if drift == Drift::Content && things.iter().any(site) {
        assert!(text.out.contains("-# edited"), "{text}");
    }
    staged.on(instance, &["install"]).exits(0);
    let after = staged.tree();
    let memory = format!("/{}/{instance}/contents/", common::HOME);
    for text in kept {
        let found = after.0.iter().any(|(path, entry)| path.starts_with(&memory) && entry.data == text.as_bytes());
        assert!(found, "{drift:?}: an edited file's content is lost:\n{text}");
    }
    let without_memory = |mut tree: Tree| {
        tree.0.retain(|path, _| !path.starts_with(&format!("/{}/", common::HOME)));
        tree
    };
    without_memory(before).assert_same(&without_memory(after.untimed()), "a repair");
}

#[test]
fn drift_is_shown_and_repaired_for_every_combination() {
    each(&one_in(5).of(Case::all()), |case| {
        let staged = case.tree();
        let first = staged.tree().untimed();
        let made = case.install(&staged);
        for (instance, things) in &made {
            for drift in [Drift::Mode, Drift::Owner, Drift::Content, Drift::Gone] {
                let fitting: Vec<&Planned> = things.iter().filter(|thing| drift.fits(thing)).collect();
                if !fitting.is_empty() {
                    drift_is_shown_and_repaired(&staged, instance, drift, &fitting);
                }
            }
        }
        for instance in case.instances {
            staged.on(instance, &["uninstall"]).exits(0);
        }
        first.assert_same(&staged.tree().untimed(), "uninstall after repairs");
    });
}

#[test]
fn drift_of_one_thing_is_shown_alone() {
    let cases: Vec<Case> = Case::all()
        .into_iter()
        .filter(|case| {
            case.instances.len() == 1
                && !case.accounts
                && (case.path == "/") == (case.who == Who::Root)
                && (case.flavour == "debian") == (case.who == Who::Root)
                && (case.flavour == "debian") == (case.manager == "systemd")
        })
        .collect();
    assert!(!cases.is_empty());
    each(&cases, |case| {
        let staged = case.tree();
        let made = case.install(&staged);
        for (instance, things) in &made {
            for thing in things {
                for drift in [Drift::Mode, Drift::Owner, Drift::Content] {
                    if !drift.fits(thing) {
                        continue;
                    }
                    drift.happen(&staged, thing);
                    let status = staged.on(instance, &["status", "--exit-code", "--json"]).exits(2);
                    let drifted = status.json()["drift"].clone();
                    let facet = drift.facet(thing);
                    let name = thing.path.as_str();
                    assert_eq!(drifted[0]["resource"]["name"], name, "{status}");
                    assert_eq!(drifted[0]["facets"], serde_json::json!([facet]), "{status}");
                    assert_eq!(drifted.as_array().map(Vec::len), Some(1), "{status}");
                    let made = staged.on(instance, &["install"]).exits(0);
                    assert_eq!(made.out.lines().next(), Some("installed: 1 change made"));
                }
            }
        }
    });
}

#[test]
fn what_nobody_asked_for_belongs_to_the_administrator() {
    for &who in Who::all() {
        let staged = Staged::of(who, "debian");
        let free: Vec<Planned> = staged
            .planned("camcops")
            .into_iter()
            .filter(|thing| thing.kind == "directory" && !thing.wanted.contains_key("mode"))
            .collect();
        assert!(free.iter().any(|thing| thing.path == "/etc/systemd"), "{free:?}");
        staged.run(&["install"]).exits(0);
        for thing in &free {
            staged.chmod(&thing.path, 0o2775);
        }
        staged.run(&["plan", "--exit-code"]).exits(0);
    }
}

/// A unit's access to homes is for what the site uses, and not for where it was installed from once.
#[test]
fn a_source_of_this_run_alone_is_in_no_file() {
    let staged = Staged::of(Who::all()[0], "debian");
    let wheels = "camcops.wheelhouse=/root/wheels";
    staged.run(&["install", "--set", wheels]).exits(0);
    staged.run(&["plan", "--exit-code"]).exits(0);
}

#[test]
fn an_edited_key_of_camcops_conf_is_kept_and_shown() {
    for &who in Who::all() {
        let mut staged = Staged::of(who, "debian");
        let first = staged.tree().untimed();
        staged.run(&["install"]).exits(0);
        let path = "etc/camcops/camcops.conf";
        let edited =
            staged.read(path).replace("SESSION_TIMEOUT_MINUTES = 30", "# our policy\nSESSION_TIMEOUT_MINUTES = 7");
        assert!(edited.contains("= 7"));
        fs::write(staged.at(path), &edited).unwrap();
        let plan = staged.run(&["plan", "--diff", "--exit-code"]).exits(0);
        assert!(plan.out.contains("SESSION_TIMEOUT_MINUTES"), "{plan}");
        assert!(plan.out.contains("nothing to do"), "{plan}");
        assert_eq!(staged.run(&["install"]).exits(0).out, "nothing to do\n");
        assert_eq!(staged.read(path), edited);
        // A change of the settings changes its own key and leaves this one.
        staged.settings = vec!["site.language=da_DK".into()];
        let plan = staged.run(&["plan", "--diff", "--exit-code"]).exits(2);
        for part in ["+LANGUAGE = da_DK", "-LANGUAGE = en_GB", "SESSION_TIMEOUT_MINUTES"] {
            assert!(plan.out.contains(part), "{part} is not in {plan}");
        }
        staged.run(&["install"]).exits(0);
        let now = staged.read(path);
        assert_eq!(now, edited.replace("LANGUAGE = en_GB", "LANGUAGE = da_DK"));
        staged.run(&["plan", "--exit-code"]).exits(0).says("SESSION_TIMEOUT_MINUTES");
        // Uninstall names the edited file and leaves it.
        staged.run(&["uninstall"]).exits(0).says(path);
        assert_eq!(staged.read(path), now);
        let mut left = staged.tree().untimed();
        left.0.retain(|path, _| !path.starts_with("/etc/camcops"));
        let mut expected = first.clone();
        expected.0.retain(|path, _| !path.starts_with("/etc/camcops"));
        expected.assert_same(&left, "uninstall with an edited file");
    }
}

#[test]
fn edited_files_stay_at_uninstall_and_are_named() {
    for &who in Who::all() {
        let staged = Staged::of(who, "debian");
        let site = "etc/apache2/sites-available/camcops.conf";
        staged.write(site, "# the old site\n");
        staged.run(&["install", "--adopt"]).exits(0);
        fs::write(staged.at(site), "# edited\n").unwrap();
        fs::write(staged.at("usr/bin/camcops_server"), "# edited too\n").unwrap();
        staged.write("srv/camcops/images/logo.png", "a picture\n");
        let ran = staged.run(&["uninstall"]).exits(0);
        for path in [site, "usr/bin/camcops_server", "srv/camcops/images"] {
            assert!(ran.out.contains(path), "{path} is not named by {ran}");
        }
        assert_eq!(staged.read(site), "# edited\n");
        assert_eq!(staged.read("usr/bin/camcops_server"), "# edited too\n");
        assert_eq!(staged.read("srv/camcops/images/logo.png"), "a picture\n");
        // What the edited file had replaced is not lost either.
        assert_eq!(staged.read(&format!("{site}.before-camcops")), "# the old site\n");
        assert!(!staged.at(common::HOME).exists());
        // Installing once more has to be asked for.
        staged.run(&["install"]).exits(73).says(site);
    }
}

#[test]
fn a_changed_mode_or_owner_alone_is_no_reason_to_leave_a_file() {
    for &who in Who::all() {
        let staged = Staged::of(who, "debian");
        let first = staged.tree().untimed();
        staged.run(&["install"]).exits(0);
        staged.chmod("usr/bin/camcops_server", 0o700);
        staged.chmod("srv/camcops", 0o777);
        if who == Who::Root {
            give_to(&staged.at("etc/camcops/camcops.conf"), 1234, 1235);
        }
        staged.run(&["uninstall"]).exits(0);
        first.assert_same(&staged.tree().untimed(), "uninstall");
    }
}

/// Settings that take away what others ask for.
const SETTINGS: [&[&str]; 9] = [
    &["services.manager=systemd"],
    &["services.manager=supervisor"],
    &["services.manager=systemd", "web.frontend=none"],
    &["services.manager=systemd", "services.disabled=[\"monitor\", \"scheduler\"]"],
    &["services.manager=supervisor", "database.mode=external", "database.host=db.example.org"],
    &["services.manager=systemd", "broker.mode=external", "broker.host=mq.example.org"],
    &["services.manager=systemd", "logging.mode=file", "web.path=/camcops"],
    &["services.manager=systemd", "account.user=camcops"],
    &["services.manager=supervisor", "database.tuning=false", "web.http_port=0"],
];

#[test]
fn changed_settings_lead_where_a_fresh_install_leads() {
    let mut cases = Vec::new();
    for &who in Who::all() {
        for (from, _) in SETTINGS.iter().enumerate() {
            for (to, _) in SETTINGS.iter().enumerate() {
                let flavour = if (from + to) % 2 == 0 { "debian" } else { "rhel" };
                if from != to && (who == Who::Root || from < to) {
                    cases.push((who, flavour, SETTINGS[from], SETTINGS[to]));
                }
            }
        }
    }
    each(&cases, |&(who, flavour, from, to)| {
        let mut staged = Staged::of(who, flavour).with_accounts().set(from);
        lived_in(&staged, flavour);
        let first = staged.tree().untimed();
        let fresh = staged.copy();
        staged.run(&["install", "--adopt"]).exits(0);
        staged.settings.clear();
        let staged = staged.set(to);
        staged.run(&["install", "--adopt"]).exits(0);
        staged.run(&["plan", "--exit-code"]).exits(0);
        let mut fresh = fresh;
        fresh.settings.clear();
        let fresh = fresh.set(to);
        fresh.run(&["install", "--adopt"]).exits(0);
        fresh.tree().masked().assert_same(&staged.tree().masked(), "changed settings");
        staged.run(&["uninstall"]).exits(0);
        first.assert_same(&staged.tree().untimed(), "uninstall");
    });
}

#[test]
fn two_instances_leave_in_either_order() {
    let mut cases = Vec::new();
    for &who in Who::all() {
        for flavour in ["debian", "rhel"] {
            for manager in ["systemd", "supervisor"] {
                for leaver in ["camcops", "two"] {
                    for adopt in [false, true] {
                        cases.push((who, flavour, manager, leaver, adopt));
                    }
                }
            }
        }
    }
    each(&cases, |&(who, flavour, manager, leaver, adopt)| {
        let stayer = if leaver == "two" { "camcops" } else { "two" };
        let staged = Staged::of(who, flavour).set(&[&format!("services.manager={manager}")]);
        if adopt {
            lived_in(&staged, flavour);
        }
        let first = staged.tree().untimed();
        let alone = staged.copy();
        for instance in ["camcops", "two"] {
            staged.on(instance, &["install", "--adopt"]).exits(0);
        }
        staged.run(&["plan", "--exit-code"]).exits(0);
        staged.on(leaver, &["uninstall"]).exits(0);
        let plan = staged.on(stayer, &["plan", "--exit-code"]).exits(0);
        assert_eq!(plan.out.lines().last(), Some("nothing to do"));
        alone.on(stayer, &["install", "--adopt"]).exits(0);
        // What an instance took over it gives back when it leaves, so both trees are the same but for the memory.
        alone.tree().masked().assert_same(&staged.tree().masked(), "the instance that stays");
        staged.on(stayer, &["uninstall"]).exits(0);
        first.assert_same(&staged.tree().untimed(), "the last uninstall");
    });
}

#[test]
fn a_package_hook_has_one_document() {
    let staged = Staged::empty(Who::all()[0]);
    staged.run(&["install", "--yes"]).exits(0);
    let ran = staged.run(&["install", "--from-package", "--json"]).exits(0);
    assert_eq!(ran.json()["pending"].as_array().map(Vec::len), Some(0));
}

#[test]
fn parts_can_be_chosen() {
    for &who in Who::all() {
        let staged = Staged::of(who, "debian");
        let first = staged.tree().untimed();
        staged.run(&["install", "--only", "web,firewall"]).exits(0);
        assert!(staged.at("etc/apache2/sites-available/camcops.conf").exists());
        assert!(!staged.at("etc/camcops/camcops.conf").exists());
        staged.run(&["plan", "--exit-code"]).exits(2);
        staged.run(&["install", "--skip", "web"]).exits(0);
        staged.run(&["plan", "--exit-code"]).exits(0);
        // A part that was not asked for is not taken away.
        staged.run(&["install", "--only", "web"]).exits(0).says("nothing to do");
        staged.run(&["uninstall"]).exits(0);
        first.assert_same(&staged.tree().untimed(), "uninstall");
    }
}

#[test]
fn a_certificate_that_no_longer_serves_is_made_anew_for_the_same_key() {
    const CERTIFICATE: &str = "etc/camcops/tls/camcops.crt";
    const KEY: &str = "etc/camcops/tls/camcops.key";
    let mut staged = Staged::of(Who::all()[0], "debian");
    let first = staged.tree().untimed();
    staged.run(&["install"]).exits(0);
    let (old, key) = (staged.read(CERTIFICATE), staged.read(KEY));
    staged.settings = vec!["web.server_names=[\"camcops.example.org\"]".into()];
    let pending = shown(&staged.run(&["plan", "--exit-code", "--json"]).exits(2));
    let is_pending = |path: &str| pending.contains(&(format!("/{path}"), "content".into()));
    // Two files can't change at once.
    assert!(is_pending(CERTIFICATE) && !is_pending(KEY), "{pending:?}");
    staged.run(&["install"]).exits(0);
    assert_ne!(staged.read(CERTIFICATE), old);
    staged.run(&["plan", "--exit-code"]).exits(0);
    fs::write(staged.at(CERTIFICATE), "nonsense").unwrap();
    staged.run(&["plan", "--exit-code"]).exits(2);
    staged.run(&["install"]).exits(0);
    staged.run(&["plan", "--exit-code"]).exits(0);
    fs::remove_file(staged.at(CERTIFICATE)).unwrap();
    staged.run(&["install"]).exits(0);
    staged.run(&["plan", "--exit-code"]).exits(0);
    assert_eq!(staged.read(KEY), key);

    // Without its key it is worth nothing.
    fs::remove_file(staged.at(KEY)).unwrap();
    staged.run(&["install"]).exits(0);
    staged.run(&["plan", "--exit-code"]).exits(0);
    assert_ne!(staged.read(KEY), key);
    staged.run(&["uninstall"]).exits(0);
    first.assert_same(&staged.tree().untimed(), "uninstall");
}

#[test]
fn a_secret_is_made_once_and_a_changed_one_is_followed() {
    let staged = Staged::of(Who::all()[0], "debian");
    staged.run(&["install"]).exits(0);
    let secret = "etc/camcops/secrets/camcops/database";
    fs::write(staged.at(secret), "another-one\n").unwrap();
    staged.run(&["install"]).exits(0);
    assert_eq!(staged.read(secret), "another-one\n");
    assert!(staged.read("etc/camcops/camcops.my.cnf").contains("another-one"));
    fs::write(staged.at(secret), "two\nlines\n").unwrap();
    let refused = staged.run(&["install"]);
    assert_ne!(refused.status.code(), Some(0));
    let refused = refused.says(secret);
    assert!(!refused.said().contains("lines"), "{refused}");
    fs::remove_file(staged.at(secret)).unwrap();
    staged.run(&["install"]).exits(0);
    assert_ne!(staged.read(secret), "another-one\n");
    assert!(staged.read("etc/camcops/camcops.my.cnf").contains(staged.read(secret).trim()));
}

/// What members of the group may run, as sudo itself reads the file: whole command lines, none with anything left open.
#[test]
fn operators_may_run_what_is_listed_and_nothing_else() {
    let staged = Staged::of(Who::Root, "debian").with_accounts().set(&["operators.group=camcops-operators"]);
    staged.run(&["install"]).exits(0);
    staged.on("two", &["install"]).exits(0);
    for (file, instance) in [("camcops", ""), ("camcops_two", "--instance two ")] {
        let path = staged.at(&format!("etc/sudoers.d/{file}"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o440);
        let mut check = Command::new("visudo");
        check.args(["--check", "--quiet", "--file"]).arg(&path);
        Ran::of(check).exits(0);
        let mut read = Command::new("cvtsudoers");
        read.args(["--output-format", "json"]).arg(&path);
        let read = read.output().unwrap();
        let read: serde_json::Value = serde_json::from_slice(&read.stdout).unwrap();
        let mut commands = Vec::new();
        for spec in read["User_Specs"].as_array().unwrap() {
            assert_eq!(spec["User_List"], json!([{ "usergroup": "camcops-operators" }]));
            for allowed in spec["Cmnd_Specs"].as_array().unwrap() {
                assert_eq!(allowed["runasusers"], json!([{ "username": "root" }]));
                // No password left out, no environment kept.
                assert_eq!(allowed["Options"], json!([{ "setenv": false }]), "{allowed}");
                let all = allowed["Commands"].as_array().unwrap();
                commands.extend(all.iter().map(|one| one["command"].as_str().unwrap()));
            }
        }
        assert!(commands.len() > 30, "{commands:?}");
        let begin = format!("/usr/bin/camcops-provision {instance}");
        for command in &commands {
            let words = command.strip_prefix(&begin).unwrap_or_else(|| panic!("{command}"));
            let closed = words.chars().all(|c| c.is_ascii_lowercase() || "- ".contains(c));
            // A command without arguments would stand for the same with any.
            assert!(closed && !words.is_empty(), "{command}");
            for dangerous in ["--root", "--config", "--set", "--out", "--metrics", "install", "shell", "exec", "run"] {
                assert!(!words.split(' ').any(|word| word == dangerous), "{command}");
            }
        }
        let has = |command: &str| commands.contains(&format!("{begin}{command}").as_str());
        assert!(has("status") && has("restart server") && has("backup create") && has("logs workers -f"));
    }
    staged.run(&["config", "set", "operators.group", "www-data"]).exits(78);
}

/// Runs sudo as a member of the group, on a machine whose sudoers begins as it is given; the program is one that tells its
/// environment.
const AS_OPERATOR: &str = r#"
set -e
cd "$1"
mkdir stub
printf '#!/bin/sh\nenv\n' > stub/camcops-provision
chmod 755 . stub/camcops-provision
cp /etc/group group
echo camcops-operators:x:4242:daemon >> group
printf '%b\nDefaults:%%camcops-operators !authenticate\n' "$2" | cat - "$3" > sudoers
chmod 440 sudoers
mount --bind sudoers /etc/sudoers
mount --bind group /etc/group
mount -t overlay overlay -o lowerdir="$PWD/stub:/usr/bin" /usr/bin
shift 3
export CAMCOPS_PROVISION_WEB__PATH=/theirs PATH="/theirs:$PATH"
exec setpriv --reuid=daemon --regid=daemon --clear-groups sudo --non-interactive "$@"
"#;

/// Nothing of an operator's environment reaches root, also where the administrator keeps that of others.
#[test]
fn the_environment_of_an_operator_stays_outside() {
    if !is_root() {
        return;
    }
    let staged = Staged::of(Who::Root, "debian").with_accounts().set(&["operators.group=camcops-operators"]);
    fs::write(staged.at("etc/sudoers"), "Defaults !env_reset, setenv\n").unwrap();
    staged.run(&["install"]).exits(0);
    let ours = staged.at("etc/sudoers.d/camcops");
    let as_operator = |words: &[&str]| {
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-c", AS_OPERATOR, "operator"]);
        command.arg(place.path()).arg("Defaults !env_reset, setenv").arg(&ours).args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ran::of(command)
    };
    let ran = as_operator(&["camcops-provision", "status"]).exits(0);
    let told = ran.said();
    assert!(told.contains("SUDO_USER=daemon") && !told.contains("theirs"), "{told}");
    as_operator(&["CAMCOPS_PROVISION_WEB__PATH=/theirs", "camcops-provision", "status"]).exits(1);
    as_operator(&["--preserve-env", "camcops-provision", "status"]).exits(1);
    as_operator(&["camcops-provision", "status", "--set", "web.path=/theirs"]).exits(1);
    // Where sudo has one already, that is the administrator's.
    fs::write(staged.at("etc/sudoers"), "Defaults secure_path=/usr/sbin:/usr/bin\n").unwrap();
    staged.run(&["install"]).exits(0);
    assert!(!staged.read("etc/sudoers.d/camcops").contains("secure_path"));
}
