use std::collections::HashMap;

use super::ini::Ini;

/// What [`merge_files`] arrived at.
#[derive(Clone, PartialEq, Eq)]
pub struct Merged {
    /// The file to write.
    pub text: String,
    /// The administrator's values that differ from ours, in the order of our file.
    pub kept: Vec<KeptKey>,
}

/// A key whose value is the administrator's, not ours. It may be a secret: show
/// it only through [`super::masked_value`].
#[derive(Clone, PartialEq, Eq)]
pub struct KeptKey {
    /// The section's name.
    pub section: String,
    /// The key as it is written.
    pub key: String,
    /// The value in the file; `None` if the administrator deleted the key.
    pub theirs: Option<String>,
    /// The value that would have been written; `None` if we no longer write the key.
    pub ours: Option<String>,
}

type Values = HashMap<(String, String), String>;

/// Brings a file up to date without undoing what the administrator changed.
///
/// `base` is what our rendering was last time, `theirs` the file as it is now, `ours`
/// the new rendering. A key whose value is still the one of `base` follows ours;
/// every other key, comment and the order stay as they are in the file. Without
/// a `base` each key that the file has counts as the administrator's.
pub fn merge_files(ours: &str, theirs: Option<&str>, base: Option<&str>) -> Merged {
    let Some(theirs) = theirs.filter(|theirs| Some(*theirs) != base) else {
        return Merged { text: ours.to_owned(), kept: vec![] };
    };
    let our_file = Ini::parse(ours);
    let base_file = Ini::parse(base.unwrap_or_default());
    let mut file = Ini::parse(theirs);
    let (our_values, base_values, values) =
        (values_of_file(&our_file), values_of_file(&base_file), values_of_file(&file));
    let mut kept = Vec::new();

    for entry in our_file.entries() {
        let id = value_id(&entry.section, &entry.key);
        // Of a repeated key only the last counts.
        let Some(value) = our_values.get(&id).filter(|value| **value == entry.value) else {
            continue;
        };
        let current = values.get(&id);
        if current == Some(value) {
            continue;
        }
        if current == base_values.get(&id) {
            let comments = our_file.comments_above(&entry.section, &entry.key);
            file.put(&entry.section, &entry.key, value, &comments);
        } else {
            kept.push(KeptKey {
                section: entry.section,
                key: entry.key,
                theirs: current.cloned(),
                ours: Some(value.clone()),
            });
        }
    }
    for entry in base_file.entries() {
        let id = value_id(&entry.section, &entry.key);
        let (Some(current), false) = (values.get(&id), our_values.contains_key(&id)) else {
            continue;
        };
        if Some(current) != base_values.get(&id) {
            kept.push(KeptKey { section: entry.section, key: entry.key, theirs: Some(current.clone()), ours: None });
        } else if file.comments_above(&entry.section, &entry.key)
            == base_file.comments_above(&entry.section, &entry.key)
        {
            file.remove_with_comments(&entry.section, &entry.key);
        } else {
            file.remove(&entry.section, &entry.key);
        }
    }
    Merged { text: file.to_string(), kept }
}

fn values_of_file(file: &Ini) -> Values {
    file.entries().into_iter().map(|entry| (value_id(&entry.section, &entry.key), entry.value)).collect()
}

fn value_id(section: &str, key: &str) -> (String, String) {
    (section.to_owned(), key.to_lowercase())
}
