use super::manifest::*;
use super::*;
use crate::base::error::Exit;
use crate::base::progress::Tell;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A small bundle in a directory of its own.
struct Small {
    home: tempfile::TempDir,
    host: Host,
    manifest: BundleManifest,
}

const FILES: [(&str, &str); 3] =
    [(TOOL, "program"), ("wheels/a-1-py3-none-any.whl", "wheel"), ("packages/b_1+3a2~deb12_all.deb", "package")];

impl Small {
    fn new(change: impl FnOnce(&mut BundleManifest)) -> Small {
        let home = tempfile::tempdir().unwrap();
        let host = Host::live().unwrap();
        let directory = home.path().to_owned();
        let at = |name: &str| directory.join(name).display().to_string();
        let files = FILES.map(|(path, text)| {
            let name = path.replace('/', "-");
            std::fs::write(at(&name), text).unwrap();
            write::describe_file(&host, &at(&name), path).unwrap()
        });
        let mut manifest = BundleManifest {
            format: FORMAT,
            made_at: "2026-11-22T07:00:00Z".into(),
            tool: "0.1.0".into(),
            machine: BundleMachine::this(&host).unwrap(),
            camcops: "2.4.24".into(),
            python: "3.11".into(),
            release: "2.4.24-py3.11-00000000".into(),
            built: Vec::new(),
            packages: BTreeSet::from(["b".to_owned()]),
            advisories: Covers::new(),
            files: files.to_vec(),
        };
        change(&mut manifest);
        let small = Small { home, host, manifest };
        let source = |path: &str| at(&path.replace('/', "-"));
        write::write_bundle(&small.host, &small.path(), &small.manifest, source).unwrap();
        small
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn path(&self) -> String {
        self.at("bundle").display().to_string()
    }

    fn unpacked(&self) -> Result<BundleManifest> {
        let directory = self.at("unpacked");
        let _ = std::fs::remove_dir_all(&directory);
        read::unpack_bundle(&self.path(), &self.host, directory.to_str().unwrap())
    }
}

#[track_caller]
fn refused(said: Result<BundleManifest>, words: &str) {
    let why = said.unwrap_err();
    assert_eq!(Exit::of(&why), Exit::Unusable, "{why:#}");
    let why = format!("{why:#}");
    assert!(why.contains(words) && !why.contains('\n'), "{why}");
}

#[test]
fn what_is_packed_is_unpacked() {
    let small = Small::new(|_| ());
    assert_eq!(read::read_manifest(&small.path()).unwrap(), small.manifest);
    assert_eq!(read::verify_bundle(&small.path()).unwrap(), small.manifest);
    assert_eq!(small.unpacked().unwrap(), small.manifest);
    for (path, text) in &FILES[1..] {
        let unpacked = std::fs::read_to_string(small.at("unpacked").join(path)).unwrap();
        assert_eq!(unpacked, *text);
    }
    assert_eq!(small.manifest.misfit(&small.host).unwrap(), None);
    assert_eq!(small.manifest.count(WHEELS), 1);
}

#[test]
fn wherever_it_is_cut_or_changed_nothing_wrong_is_unpacked() {
    let small = Small::new(|_| ());
    let whole = std::fs::read(small.path()).unwrap();
    for end in 0..whole.len() {
        std::fs::write(small.path(), &whole[..end]).unwrap();
        refused(read::verify_bundle(&small.path()), "bundle");
    }
    let mut harmless = 0;
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(small.path(), &changed).unwrap();
        match read::verify_bundle(&small.path()) {
            // A field of zstd's own that changes nothing of what comes out.
            Ok(manifest) => {
                assert_eq!(manifest, small.manifest);
                assert_eq!(small.unpacked().unwrap(), small.manifest);
                for (path, text) in &FILES[1..] {
                    let unpacked = std::fs::read(small.at("unpacked").join(path)).unwrap();
                    assert_eq!(unpacked, text.as_bytes());
                }
                harmless += 1;
            }
            wrong => refused(wrong, "bundle"),
        }
    }
    assert!(harmless * 20 < whole.len(), "{harmless} of {}", whole.len());
    std::fs::write(small.path(), [&whole[..], b"more"].concat()).unwrap();
    refused(read::verify_bundle(&small.path()), "is damaged");
}

#[test]
fn a_file_that_is_not_as_its_manifest_says_is_refused() {
    let small = Small::new(|manifest| manifest.files[1].sha256 = "0".repeat(64));
    refused(read::verify_bundle(&small.path()), "wheels/a-1-py3-none-any.whl");
    refused(small.unpacked(), "wheels/a-1-py3-none-any.whl");
}

#[test]
fn no_name_leads_elsewhere() {
    for name in [
        "../evil",
        "/etc/evil",
        "wheels/../evil",
        "wheels/..",
        "wheels/.hidden",
        "wheels/a/b",
        "wheels/",
        "wheels",
        "elsewhere/a",
        "tool/other",
        "packages/a%2fb",
        "packages/a\nb",
    ] {
        let small = Small::new(|_| ());
        let mut manifest = small.manifest.clone();
        manifest.files[1].path = name.into();
        let text = serde_json::to_vec(&manifest).unwrap();
        assert!(BundleManifest::parse(&text).is_err(), "{name}");
    }
    let small = Small::new(|_| ());
    let mut twice = small.manifest.clone();
    twice.files[2] = twice.files[1].clone();
    assert!(BundleManifest::parse(&serde_json::to_vec(&twice).unwrap()).is_err());
}

#[test]
fn another_kind_of_machine_or_format_is_refused() {
    type Change = fn(&mut BundleManifest);
    let changes: [(Change, &str); 3] = [
        (|manifest| manifest.machine.architecture = "vax".into(), "on vax"),
        (|manifest| manifest.machine.distribution = "minix".into(), "for minix"),
        (|manifest| manifest.machine.version = "3.0".into(), " 3.0 on"),
    ];
    for (change, words) in changes {
        let small = Small::new(change);
        let manifest = read::verify_bundle(&small.path()).unwrap();
        let why = manifest.misfit(&small.host).unwrap().unwrap();
        assert!(why.contains(words), "{why}");
        let bundle =
            Bundle { path: small.path(), tell: Tell::NOBODY, manifest: OnceCell::new(), unpacked: OnceCell::new() };
        refused(bundle.manifest(&small.host).cloned(), words);
    }
    let newer = Small::new(|manifest| manifest.format = FORMAT + 1);
    refused(read::verify_bundle(&newer.path()), "newer version");
}

#[test]
fn what_is_no_bundle_is_refused() {
    let small = Small::new(|_| ());
    for text in ["", "nothing", "\u{1f}\u{8b}"] {
        std::fs::write(small.path(), text).unwrap();
        refused(read::verify_bundle(&small.path()), "is not a bundle");
    }
    refused(read::verify_bundle(&small.home.path().display().to_string()), "is not a file");
    refused(read::verify_bundle("/nowhere/bundle"), "No such file");
}

/// A staged machine that takes advisories out of a bundle with these in it.
fn placed(text: &str, change: impl FnOnce(&mut BundleManifest)) -> (tempfile::TempDir, Result<Option<String>>) {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    std::fs::create_dir_all(root.join("var/lib/camcops-provision")).unwrap();
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::copy("/etc/os-release", root.join("etc/os-release")).unwrap();
    let (live, host) = (Host::live().unwrap(), Host::staged(&root).unwrap());
    let small = Small::new(|_| ());
    let source = home.path().join("osv.json").display().to_string();
    std::fs::write(&source, text).unwrap();
    let mut manifest = small.manifest.clone();
    manifest.files.insert(1, write::describe_file(&live, &source, advisories::ADVISORY_FILE).unwrap());
    manifest.advisories.insert("PyPI".into(), CoveredData { records: 1, modified: "2026-11-30T00:00:00Z".into() });
    change(&mut manifest);
    let path = home.path().join("bundle").display().to_string();
    let from = |path: &str| match path {
        advisories::ADVISORY_FILE => source.clone(),
        other => small.at(&other.replace('/', "-")).display().to_string(),
    };
    write::write_bundle(&live, &path, &manifest, from).unwrap();
    let bundle = Bundle { path, tell: Tell::NOBODY, manifest: OnceCell::new(), unpacked: OnceCell::new() };
    let done = bundle.place_advisories(&host).and_then(|()| bundle.place_advisories(&host));
    let placed = done.and_then(|()| host.read_text("/var/lib/camcops-provision/advisories/bundle.json"));
    (home, placed)
}

#[test]
fn advisories_are_put_where_the_site_keeps_them() {
    let (home, text) = placed("{\"vulns\": []}", |manifest| assert_eq!(format_for(&manifest.advisories), FORMAT));
    assert_eq!(text.unwrap().as_deref(), Some("{\"vulns\": []}"));
    use std::os::unix::fs::PermissionsExt;
    let directory = home.path().join("root/var/lib/camcops-provision/advisories");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&directory.join("bundle.json"))), (0o700, 0o600));
    // One that has none changes nothing.
    let (home, text) = placed("x", |manifest| drop(manifest.files.remove(1)));
    assert_eq!(text.unwrap(), None);
    assert!(!home.path().join("root/var/lib/camcops-provision/advisories").exists());
    assert_eq!(format_for(&Covers::new()), 1);
    // What is damaged is not put in place.
    let (home, text) = placed("x", |manifest| manifest.files[1].sha256 = "0".repeat(64));
    let why = text.unwrap_err();
    assert!(Exit::of(&why) == Exit::Unusable && why.to_string().contains("advisories/osv.json"), "{why:#}");
    assert!(!home.path().join("root/var/lib/camcops-provision/advisories/bundle.json").exists());
}
