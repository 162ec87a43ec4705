//! Writes the table of releases as Rust: what stands in requirements/releases, so that another one is only files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let home = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let releases = home.join("requirements/releases");
    println!("cargo::rerun-if-changed=requirements/releases");
    let mut versions = names_in(&releases)?;
    // By number: 2.4.9 is older than 2.4.10, and 2.4.24 than 2.4.24+1.
    versions.sort_by_key(|version| numbers_of(version));
    fs::write(out.join("versions.rs"), format!("&{:?}", versions))?;
    let mut table = "&[\n".to_owned();
    for version in &versions {
        let folder = releases.join(version);
        let about = folder.with_file_name(version.split('+').next().unwrap_or(version)).join("about.toml");
        let mut lists: Vec<(u8, PathBuf)> = Vec::new();
        for name in names_in(&folder)? {
            let minor = name.strip_prefix("python3.").and_then(|rest| rest.strip_suffix(".txt")?.parse().ok());
            lists.extend(minor.map(|minor| (minor, folder.join(&name))));
        }
        // The newest first: that is the order in which a Python is looked for.
        lists.sort_by(|one, other| other.cmp(one));
        let _ = write!(table, "    PinnedFiles {{ version: {version:?}, about: {}, lists: &[", include(&about));
        for (minor, list) in lists {
            let _ = write!(table, "({minor}, {}), ", include(&list));
        }
        table.push_str("] },\n");
    }
    table.push(']');
    fs::write(out.join("releases.rs"), table)
}

fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn numbers_of(version: &str) -> Vec<u32> {
    version.split(['.', '+']).filter_map(|number| number.parse().ok()).collect()
}

fn include(path: &Path) -> String {
    format!("include_str!({:?})", path.display().to_string())
}
