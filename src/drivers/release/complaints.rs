//! What went wrong when pip or uv failed, found in what they said.

use super::index::mask_login;
use crate::base::error::Exit;
use crate::host::Ended;

/// What pip and uv say when they can't get through, the most telling first.
const NO_CONNECTION: [&str; 14] = [
    "name resolution",
    "name or service not known",
    "failed to lookup address",
    "connection refused",
    "network is unreachable",
    "no route to host",
    "timed out",
    "certificate verify failed",
    "invalid peer certificate",
    "tunnel",
    "proxy authentication",
    "connection reset",
    "error sending request",
    "newconnectionerror",
];

/// What they say when the other side has no such file, or denies that it has.
const ABSENT: [&str; 8] = [
    "no matching distribution",
    "was not found",
    "not found in",
    "no solution found",
    "not available",
    "unauthorized",
    "forbidden",
    "could not find a version",
];

/// The last line that has one of these words, the first word that is found at all.
fn find_line<'a>(said: &'a str, words: &[&str]) -> Option<&'a str> {
    words.iter().find_map(|word| {
        let mut lines = said.lines().rev();
        let line = lines.find(|line| line.to_lowercase().contains(word))?;
        // pip puts the reason last, in the name of an exception of its own.
        let reason = line.rsplit(": ").find(|part| part.to_lowercase().contains(word));
        Some(reason.unwrap_or(line).trim_matches(|c: char| " '\")(│├╰─▶".contains(c)))
    })
}

/// `name==version` in what pip or uv say of a hash.
fn package_in(said: &str) -> Option<&str> {
    let mut lines = said.lines();
    lines
        .find(|line| {
            let line = line.to_lowercase();
            line.contains("do not match the hashes") || line.contains("hash mismatch")
        })
        .and_then(|line| line.split(['`', '\'']).find(|word| word.contains("==")))
        .or_else(|| {
            let mut words = lines.flat_map(str::split_whitespace);
            words.find(|word| word.contains("=="))
        })
}

/// Whether they were answered, and there is no such file.
pub(super) fn is_absent(ended: &Ended) -> bool {
    let said = format!("{}{}", ended.output, ended.complaint);
    find_line(&said, &ABSENT).is_some() && find_line(&said, &NO_CONNECTION).is_none()
}

/// Why pip or uv failed, which were to take all from a directory, or else from the index.
pub(super) fn explain_failure(source: Option<&str>, what: &str, ended: &Ended) -> anyhow::Error {
    let said = mask_login(&format!("{}\n{}", ended.output, ended.complaint));
    let last = mask_login(&ended.last_words());
    if let Some(line) = find_line(&said, &["do not match the hashes", "hash mismatch"]) {
        return Exit::Unusable.because(format!(
            "{what}: a file differs from the one that this version was tested with: {}; get it from a source that you trust",
            package_in(&said).unwrap_or(line)
        ));
    }
    if let Some(line) = find_line(&said, &["failed to extract", "not a zip file", "invalid zip"]) {
        return Exit::Unusable.because(format!("{what}: a file is damaged: {line}; download it again"));
    }
    if let Some(line) = find_line(&said, &["no space left on device"]) {
        return Exit::Io.because(format!("{what}: {line}; free some space and run again"));
    }
    let unreachable = |why: String| Exit::Unreachable.because(format!("{what}: {why}"));
    match source {
        Some(directory) => {
            if let Some(line) = find_line(&said, &ABSENT) {
                return unreachable(format!("{directory} does not have all of its files: {line}"));
            }
        }
        None => {
            if let Some(line) = find_line(&said, &NO_CONNECTION) {
                return unreachable(format!(
                    "the Python package index can't be reached ({line}); see [network] in the settings, or give the files with --wheelhouse DIR"
                ));
            }
            if let Some(line) = find_line(&said, &ABSENT) {
                return unreachable(format!(
                    "the Python package index does not give it: {line}; it does not have it, or it needs another login (network.pip_login_file)"
                ));
            }
        }
    }
    Exit::Failed.because(format!("{what} ({}): {last}", ended.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_found_in_what_was_said() {
        let pip = "WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError('<x>: \
            Failed to establish a new connection: [Errno -3] Temporary failure in name resolution')': /simple/uv/\n\
            ERROR: No matching distribution found for uv==0.13.8";
        let reason = find_line(pip, &NO_CONNECTION).unwrap();
        assert!(reason.contains("Temporary failure in name resolution"), "{reason}");
        let uv =
            "  × Failed to fetch: `https://x/`\n  ├─▶ client error (Connect)\n  ╰─▶ Connection refused (os error 111)";
        assert_eq!(find_line(uv, &NO_CONNECTION), Some("Connection refused (os error 111"));
        assert_eq!(find_line("all is well", &NO_CONNECTION), None);
        let uv = "error: Hash mismatch for `alembic==1.14.1`\n\nExpected:\n";
        assert_eq!(package_in(uv), Some("alembic==1.14.1"));
        let pip = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM\n    alembic==1.14.1 from file:///x:\n";
        assert_eq!(package_in(pip), Some("alembic==1.14.1"));
    }
}
