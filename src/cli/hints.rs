//! What is said about a command line that is not understood: what was probably meant, if that is near and destroys nothing.

use super::build_command;
use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Commands that are never proposed: whoever means one of them types it.
const DESTRUCTIVE: [&str; 6] = ["uninstall", "rollback", "restore", "prune", "reset", "purge"];
/// Flags that are never proposed.
const DESTRUCTIVE_FLAGS: [&str; 3] = ["--purge", "--confirm", "--destroy-clinical-data"];

/// Commands of other programs that people type here, and what does that.
const OTHER_WORDS: [(&str, &str); 8] = [
    (
        "update",
        "`camcops-provision install` applies changed settings, `camcops-provision upgrade` upgrades CamCOPS, and `apt upgrade` upgrades camcops-provision itself",
    ),
    ("setup", "`camcops-provision init` asks for the settings, and `camcops-provision install` applies them"),
    ("configure", "`camcops-provision config edit` changes the settings, and `camcops-provision install` applies them"),
    ("apply", "`camcops-provision install` applies the settings"),
    ("check", "`camcops-provision doctor` checks the site, and `camcops-provision config validate` the settings"),
    ("health", "`camcops-provision doctor` checks the site"),
    ("info", "`camcops-provision status` shows what is installed and running"),
    ("ps", "`camcops-provision status` shows the services, and `camcops-provision stats` their processes"),
];

/// What does without changes what a command would do.
const DRY_RUNS: [(&str, &str); 4] = [
    ("install", "`camcops-provision plan` shows what install would do, without changing anything"),
    ("upgrade", "`camcops-provision upgrade --check` shows what upgrade would do, without changing anything"),
    ("uninstall", "uninstall asks before it begins; answer p to see what it would remove and keep"),
    ("", "`camcops-provision plan` shows what install would do, without changing anything"),
];

/// Replaces what the parser proposes.
pub(super) fn improve_error(mut error: Error, words: &[String]) -> Error {
    let path = command_path(words);
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let given = text_of(&error, ContextKind::InvalidSubcommand);
            error.remove(ContextKind::SuggestedSubcommand);
            error.remove(ContextKind::Suggested);
            if let Some(near) = nearest_command(&path, &given) {
                error.insert(ContextKind::SuggestedSubcommand, ContextValue::String(near));
            }
            add_tips(&mut error, &tips_for_command(&path, &given));
        }
        ErrorKind::UnknownArgument => {
            let given = text_of(&error, ContextKind::InvalidArg);
            if DESTRUCTIVE_FLAGS.contains(&text_of(&error, ContextKind::SuggestedArg).as_str()) {
                error.remove(ContextKind::SuggestedArg);
            }
            if given == "--dry-run" {
                let first = path.first().map_or("", String::as_str);
                let tips = DRY_RUNS.iter().find(|(command, _)| *command == first || command.is_empty());
                error.remove(ContextKind::SuggestedArg);
                error.remove(ContextKind::Suggested);
                add_tips(&mut error, &tips.map(|(_, tip)| (*tip).to_owned()).into_iter().collect::<Vec<_>>());
            }
        }
        _ => {}
    }
    error
}

/// Whether somebody asks for the version as if that were a command.
pub(super) fn asks_for_version(error: &Error, words: &[String]) -> bool {
    error.kind() == ErrorKind::InvalidSubcommand
        && text_of(error, ContextKind::InvalidSubcommand) == "version"
        && command_path(words).is_empty()
}

fn text_of(error: &Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    }
}

fn add_tips(error: &mut Error, tips: &[String]) {
    if !tips.is_empty() {
        let tips = tips.iter().map(|tip| tip.clone().into()).collect();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
}

/// The commands that were understood: `backup creat` is `["backup"]`.
fn command_path(words: &[String]) -> Vec<String> {
    let mut path = Vec::new();
    let root = build_command();
    let mut at = &root;
    for word in words.iter().skip(1) {
        if let Some(below) = at.find_subcommand(word) {
            at = below;
            path.push(word.clone());
        }
    }
    path
}

fn command_at<'a>(root: &'a Command, path: &[String]) -> Option<&'a Command> {
    path.iter().try_fold(root, |at, word| at.find_subcommand(word))
}

fn visible_names(command: &Command) -> impl Iterator<Item = &str> {
    let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    visible.map(Command::get_name).filter(|name| !DESTRUCTIVE.contains(name))
}

/// The command that differs by a slip of the finger: a letter or two, or two letters that changed places.
fn nearest_command(path: &[String], given: &str) -> Option<String> {
    let root = build_command();
    let edits = |name: &&str| strsim::damerau_levenshtein(given, name);
    let near = visible_names(command_at(&root, path)?).min_by_key(edits)?;
    let most = if near.len() < 6 { 1 } else { 2 };
    (edits(&near) <= most).then(|| near.to_owned())
}

fn tips_for_command(path: &[String], given: &str) -> Vec<String> {
    if !path.is_empty() {
        return Vec::new();
    }
    if let Some((_, tip)) = OTHER_WORDS.iter().find(|(word, _)| *word == given) {
        return vec![(*tip).to_owned()];
    }
    let root = build_command();
    let groups = root.get_subcommands().filter(|group| visible_names(group).any(|name| name == given));
    groups.map(|group| format!("there is `camcops-provision {} {given}`", group.get_name())).collect()
}

#[cfg(test)]
mod tests {
    use crate::cli::Cli;

    fn told(line: &str) -> String {
        Cli::parse_words(line.split(' ')).unwrap_err().render().to_string()
    }

    #[test]
    fn only_what_is_near_is_proposed_and_nothing_that_destroys() {
        for (line, near) in [
            ("camcops-provision instal", "'install'"),
            ("camcops-provision stauts", "'status'"),
            ("camcops-provision docter", "'doctor'"),
            ("camcops-provision --instance two backup creat", "'create'"),
            ("camcops-provision config vaildate", "'validate'"),
        ] {
            let said = told(line);
            assert!(said.contains("similar") && said.contains(near), "{said}");
        }
        for line in [
            "camcops-provision frobnicate",
            "camcops-provision uninstal",
            "camcops-provision rolback",
            "camcops-provision backup restor",
            "camcops-provision backup prun",
            "camcops-provision db rest",
            "camcops-provision uninstall --purg",
            "camcops-provision db reset --destroy",
        ] {
            let said = told(line);
            assert!(!said.contains("tip:") && said.contains("--help"), "{line}: {said}");
        }
    }

    #[test]
    fn words_of_other_programs_are_answered() {
        for (line, tip) in [
            ("camcops-provision update", "upgrade"),
            ("camcops-provision check", "doctor"),
            ("camcops-provision install --dry-run", "camcops-provision plan"),
            ("camcops-provision upgrade --dry-run", "upgrade --check"),
            ("camcops-provision uninstall --dry-run", "answer p"),
            ("camcops-provision renew", "camcops-provision cert renew"),
            ("camcops-provision list", "camcops-provision backup list"),
        ] {
            let said = told(line);
            assert!(said.contains("tip: ") && said.contains(tip), "{said}");
        }
        assert!(!told("camcops-provision prune").contains("tip:"));
        let version = Cli::parse_words(["camcops-provision", "version"]).unwrap_err();
        assert!(!version.use_stderr() && version.to_string().contains(env!("CARGO_PKG_VERSION")));
    }
}
