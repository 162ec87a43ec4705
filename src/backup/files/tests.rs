//! Archives that no backup would have, and what becomes of them.

use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

/// An entry of an archive: its name, its kind, and its content or where it leads.
type Entry = (&'static str, EntryType, &'static str);

const DIRECTORY: EntryType = EntryType::Directory;
const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;

/// With names as they are given: the writer of the library refuses some of them.
fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        let is_file = *kind == FILE;
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.set_size(if is_file { content.len() as u64 } else { 0 });
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        if !is_file {
            old.linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_cksum();
        let content = if is_file { content.as_bytes() } else { b"" };
        archive.append(&header, content).unwrap();
    }
    zstd::encode_all(&archive.into_inner().unwrap()[..], 1).unwrap()
}

fn machine() -> (TempDir, Host) {
    let root = TempDir::new().unwrap();
    for directory in ["etc/cron.d", "opt", "srv"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    let host = Host::staged(root.path()).unwrap();
    (root, host)
}

fn everything(root: &TempDir) -> Vec<String> {
    let mut left = vec![root.path().to_owned()];
    let mut all = Vec::new();
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.push(format!("{} {:o}", path.display(), found.permissions().mode()));
    }
    all.sort();
    all
}

#[test]
fn what_no_backup_has_is_refused_whole() {
    let good: Entry = ("opt/first", FILE, "x");
    let bad: [&[Entry]; 12] = [
        &[("opt/x", LINK, "/etc"), ("opt/x/cron.d/pwn", FILE, "* * * * * root true")],
        &[("opt/x/y", FILE, ""), ("opt/x", LINK, "/etc")],
        &[("opt/x", FILE, ""), ("opt/x/y", FILE, "")],
        &[("opt/x", LINK, "/srv"), ("opt/x", FILE, "")],
        &[("opt/x", FILE, "a"), ("opt/x", FILE, "b")],
        &[("opt/../etc/cron.d/pwn", FILE, "")],
        &[("/etc/cron.d/pwn", FILE, "")],
        &[("opt/./x", FILE, "")],
        &[("opt//x", FILE, "")],
        &[("opt/x", EntryType::Link, "etc/shadow")],
        &[("opt/x", EntryType::Block, "")],
        &[("opt/x\u{1b}", FILE, "")],
    ];
    for entries in bad {
        let (root, host) = machine();
        let before = everything(&root);
        let packed = archive(&[&[good], entries].concat());
        let why = check_archive(&host, &packed[..]).unwrap_err();
        assert_eq!(Exit::of(&why), Exit::Unusable, "{entries:?}: {why:#}");
        assert_eq!(everything(&root), before, "{entries:?}");
        // Whoever does not ask before gets no further than the first such thing.
        bring_back(&host, &packed[..]).unwrap_err();
        let left = fs::read_dir(root.path().join("etc/cron.d")).unwrap().count();
        assert_eq!(left, 0, "{entries:?}");
    }
}

#[test]
fn nothing_is_written_through_a_link_that_is_here() {
    let (root, host) = machine();
    symlink("/etc", root.path().join("opt/x")).unwrap();
    let packed = archive(&[("srv/first", FILE, "x"), ("opt/x/cron.d/pwn", FILE, "x")]);
    for why in [check_archive(&host, &packed[..]).unwrap_err(), bring_back(&host, &packed[..]).unwrap_err()] {
        assert_eq!(Exit::of(&why), Exit::CannotCreate, "{why:#}");
    }
    assert!(!root.path().join("etc/cron.d/pwn").exists());
    // The place itself may be where there is more room.
    fs::remove_dir_all(root.path().join("srv")).unwrap();
    fs::create_dir(root.path().join("data")).unwrap();
    symlink("data", root.path().join("srv")).unwrap();
    let packed = archive(&[("srv/camcops", DIRECTORY, ""), ("srv/camcops/a", FILE, "x")]);
    check_archive(&host, &packed[..]).unwrap();
    assert_eq!(bring_back(&host, &packed[..]).unwrap().number, 2);
    assert!(root.path().join("data/camcops/a").exists());
}

#[test]
fn another_kind_of_thing_is_not_replaced() {
    let (root, host) = machine();
    fs::create_dir_all(root.path().join("srv/a/b")).unwrap();
    fs::write(root.path().join("srv/c"), "c").unwrap();
    for entry in [("srv/a", FILE, "x"), ("srv/a", LINK, "/srv/c"), ("srv/c", DIRECTORY, ""), ("srv/c/d", FILE, "")] {
        let packed = archive(&[entry]);
        let why = check_archive(&host, &packed[..]).unwrap_err();
        assert_eq!(Exit::of(&why), Exit::CannotCreate, "{entry:?}: {why:#}");
    }
}

#[test]
fn links_that_lead_out_and_set_id_bits_stay_behind() {
    let (root, host) = machine();
    let packed = archive(&[
        ("etc/cron.d/pwn", FILE, "x"),
        ("opt/out", LINK, "../etc/shadow"),
        ("opt/up", LINK, "../../../../etc/shadow"),
        ("opt/in", LINK, "tool"),
        ("opt/tool", FILE, "#!/bin/sh\n"),
    ]);
    check_archive(&host, &packed[..]).unwrap();
    let brought = bring_back(&host, &packed[..]).unwrap();
    assert_eq!(brought.left_out, ["/etc/cron.d/pwn", "/opt/out", "/opt/up"]);
    let tool = fs::metadata(root.path().join("opt/in")).unwrap();
    assert_eq!(tool.permissions().mode() & 0o7777, 0o755);
}

#[test]
fn an_archive_that_was_cut_is_refused_before_anything_is_written() {
    let (root, host) = machine();
    let before = everything(&root);
    let content: String = (0..20_000).map(|number| number.to_string()).collect();
    let content: &'static str = Box::leak(content.into_boxed_str());
    let packed = archive(&[("opt/first", FILE, "x"), ("opt/x", FILE, content)]);
    check_archive(&host, &packed[..packed.len() / 2]).unwrap_err();
    assert_eq!(everything(&root), before);
}

#[test]
fn the_sites_own_authority_moves_with_it() {
    use crate::cli::Cli;
    use crate::session::Session;
    use clap::Parser;
    let (root, host) = machine();
    let names = ["/etc/camcops/tls/camcops-authority.crt", "/etc/camcops/tls/camcops-authority.key"];
    fs::create_dir_all(root.path().join("etc/camcops/tls")).unwrap();
    for name in names {
        fs::write(root.path().join(name.trim_start_matches('/')), "x").unwrap();
    }
    let place = root.path().to_string_lossy();
    let words = ["camcops-provision", "--root", &place, "--set", "tls.mode=local-ca", "backup", "create"];
    let session = Session::open(&Cli::parse_from(words).global).unwrap();
    let kept = list_paths(&host, &session.site).unwrap();
    assert!(names.iter().all(|name| kept.iter().any(|path| path == name)), "{kept:?}");
}
