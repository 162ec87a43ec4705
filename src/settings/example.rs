//! The annotated example of `provision.toml`.

use super::extra::{EXTRA, FIELDS};
use super::key::{Key, all_keys};

const INTRODUCTION: &str = "\
# Settings of camcops-provision. Every key is shown with its default, or with
# an example where the default is empty; remove the # to set it.
# Files in provision.d beside this one, environment variables and --set
# override this file, in this order. Passwords are never settings: name a file.

# Files or directories with settings that this file overrides, such as a
# tracked directory that several sites share; this stands above all sections.
#include = [\"/srv/site-config\"]
";

const CONFIG: &str = "
# Values copied to camcops.conf as they are: [config.site], [config.server],
# [config.export] and [config.\"recipient:NAME\"], with the keys of camcops.conf.
[config.site]
#PERMIT_IMMEDIATE_DOWNLOADS = false
";

/// The annotated example file, with every key commented out.
pub fn example() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut section = "";
    for key in all_keys() {
        if key.section != section {
            section = key.section;
            text += &format!("\n{}[{section}]\n", comment_lines(key.section_doc));
        }
        text += &describe_key(key);
    }
    text + CONFIG
}

fn describe_key(key: &Key) -> String {
    let doc = comment_lines(key.doc);
    let limits = comment_lines(&format!("Allowed: {}. Default: {}.", key.allowed, key.default));
    let value = match key.default_toml.as_str() {
        "\"\"" | "[]" => key.example,
        default => default,
    };
    let mut text = format!("\n{doc}{limits}#{} = {value}\n", key.short_name());
    if key.name == EXTRA {
        text += "# Or as a table at the end of the file; provision.toml(5) explains the keys:\n# [[services.extra]]\n";
        for field in FIELDS.iter().filter(|field| field.name != "socket") {
            text += &format!("# {} = {}\n", field.name, field.example);
        }
    }
    text
}

fn comment_lines(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 79 {
            lines += &line;
            lines += "\n";
            line = String::from("#");
        }
        line += " ";
        line += word;
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Settings, Sources};

    fn uncommented() -> String {
        let lines = example();
        let lines = lines.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_alphabetic()) => key,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn resolve(text: &str) -> Settings {
        let files = vec![("/etc/camcops/provision.toml".into(), text.to_owned())];
        let resolved = Settings::resolve(&Sources { files, ..Sources::default() });
        resolved.unwrap_or_else(|problems| panic!("{problems}")).settings
    }

    #[test]
    fn as_it_stands_it_changes_nothing() {
        assert_eq!(resolve(&example()), Settings::default());
    }

    #[test]
    fn uncommented_it_gives_the_defaults_or_the_examples() {
        let settings = resolve(&uncommented());
        for key in all_keys() {
            let expected = match key.default_toml.as_str() {
                "\"\"" | "[]" => key.example,
                default => default,
            };
            assert_eq!(settings.get(key.name).as_deref(), Some(expected), "{}", key.name);
        }
        assert_eq!(settings.config["site"].len(), 1);
    }

    #[test]
    fn every_line_fits_a_terminal() {
        for line in example().lines() {
            let is_text = line.starts_with("# ");
            assert!(!is_text || line.chars().count() <= 79, "{line}");
        }
    }

    #[test]
    fn every_key_is_documented_and_its_example_is_not_its_default() {
        for key in all_keys() {
            assert!(key.doc.ends_with('.'), "{}", key.name);
            assert_ne!(key.example, key.default_toml, "{}", key.name);
        }
    }
}
