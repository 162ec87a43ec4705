//! The site's own rules for a copy: stricter than what CamCOPS declares, or less strict where that names nobody.

use super::columns::{Column, ColumnTreatment, Dictionary, IDENTIFYING};
use crate::base::error::Exit;
use crate::host::Host;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::Read;
use toml_edit::Document;

const FLAG: &str = "--rules";
/// No file of rules is larger.
const LARGEST: u64 = 1 << 20;
/// What CamCOPS declares to say who somebody is, and pictures: never copied as it is.
const NEVER_KEPT: [&str; 2] = [IDENTIFYING, "blob"];

/// What becomes of columns, instead of what CamCOPS's declarations say.
#[derive(Debug, Default)]
pub(crate) struct CopyRules(Vec<ColumnRule>);

#[derive(Debug)]
struct ColumnRule {
    table: String,
    column: String,
    treatment: ColumnTreatment,
}

impl ColumnRule {
    /// Whether it names one column, and not those of a pattern.
    fn is_exact(&self) -> bool {
        !self.table.contains('*') && !self.column.contains('*')
    }

    fn fits(&self, table: &str, column: &str) -> bool {
        matches(&self.table, table) && matches(&self.column, column)
    }

    /// Names go before patterns, those of tables before those of columns.
    fn rank(&self) -> u8 {
        u8::from(!self.table.contains('*')) * 2 + u8::from(!self.column.contains('*'))
    }
}

impl CopyRules {
    /// Reads them from a file that only root can have written.
    pub(crate) fn read(host: &Host, path: &str) -> Result<CopyRules> {
        let wrong = |what: &str| Exit::Unusable.because(format!("{FLAG} {path}: {what}"));
        let Some((entry, file)) = host.open_file(path)? else {
            return Err(wrong("there is no such file"));
        };
        host.refuse_foreign(path, &entry).context(FLAG)?;
        let mut text = String::new();
        file.take(LARGEST).read_to_string(&mut text).map_err(|_| wrong("it is not UTF-8 text"))?;
        CopyRules::parse(&text).map_err(|why| wrong(&why.to_string()))
    }

    /// `[TABLE]`, and below it `COLUMN = "keep"`, `"year"` or `"empty"`; a name may be a pattern with `*`.
    fn parse(text: &str) -> Result<CopyRules> {
        let wrong = |what: String| Exit::Unusable.because(what);
        let document = Document::parse(text).map_err(|why| wrong(format!("it is not TOML: {}", why.message())))?;
        let mut rules = Vec::new();
        for (table, item) in document.as_table() {
            let columns = item.as_table_like().ok_or_else(|| {
                wrong(format!("{table}: write the name of the table as [{table}], and its columns below it"))
            })?;
            for (column, value) in columns.iter() {
                let treatment = match value.as_str() {
                    Some("keep") => ColumnTreatment::Kept,
                    Some("year") => ColumnTreatment::Year,
                    Some("empty") => ColumnTreatment::Emptied,
                    _ => {
                        return Err(wrong(format!(
                            "{table}.{column}: write \"keep\", \"year\" (the first day of it) or \"empty\""
                        )));
                    }
                };
                rules.push(ColumnRule { table: table.to_owned(), column: column.to_owned(), treatment });
            }
        }
        Ok(CopyRules(rules))
    }

    /// Refuses a rule that means nothing here, or that would show who somebody is.
    pub(crate) fn check(&self, all: &BTreeMap<String, Vec<Column>>, dictionary: &Dictionary) -> Result<()> {
        for rule in &self.0 {
            let name = format!("{}.{}", rule.table, rule.column);
            let refused = |what: &str| Exit::Unusable.because(format!("{FLAG}: {name}: {what}; nothing was changed"));
            let columns = all.iter().flat_map(|(table, columns)| columns.iter().map(move |column| (table, column)));
            let mut found = columns.filter(|(table, column)| rule.fits(table, &column.name)).peekable();
            if found.peek().is_none() {
                return Err(refused("there is no such column"));
            }
            if !rule.is_exact() {
                continue;
            }
            if let Some((table, column)) = found.next() {
                if !is_of_a_patient(table, dictionary) || is_structural(column) {
                    return Err(refused("rules are for what patients and tasks have, not for numbers that join them"));
                }
                let kind = kind_of(dictionary, table, column);
                if rule.treatment == ColumnTreatment::Kept && NEVER_KEPT.contains(&kind) {
                    return Err(refused("CamCOPS declares that it identifies the patient, so it cannot be kept"));
                }
                if rule.treatment == ColumnTreatment::Year && !column.may_have_a_year() {
                    return Err(refused("it is not a date"));
                }
            }
        }
        Ok(())
    }

    /// What becomes of a column by the most special rule that fits; nothing where none does.
    pub(crate) fn treatment(&self, table: &str, column: &Column, kind: &str) -> Option<ColumnTreatment> {
        let fitting = self.0.iter().filter(|rule| rule.fits(table, &column.name));
        let rule = fitting.max_by_key(|rule| rule.rank())?;
        let is_possible = !is_structural(column)
            && match rule.treatment {
                ColumnTreatment::Kept => !NEVER_KEPT.contains(&kind),
                ColumnTreatment::Year => column.may_have_a_year(),
                _ => true,
            };
        is_possible.then_some(rule.treatment)
    }
}

fn is_of_a_patient(table: &str, dictionary: &Dictionary) -> bool {
    !table.starts_with('_') && dictionary.contains_key(table)
}

fn kind_of<'a>(dictionary: &'a Dictionary, table: &str, column: &Column) -> &'a str {
    dictionary.get(table).and_then(|table| table.get(&column.name)).map_or("text", String::as_str)
}

/// Keys and what else holds the records together: without it a copy has no meaning.
fn is_structural(column: &Column) -> bool {
    column.name.starts_with('_') || column.name == "id" || column.name.ends_with("_id")
}

/// Whether a name is like a pattern, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.split_once(part) {
            Some((_, behind)) => left = behind,
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: &str) -> Column {
        Column { name: name.into(), data_type: data_type.into(), nullable: true }
    }

    fn dictionary() -> Dictionary {
        let kinds = [("surname", "identifying"), ("when_created", "plain"), ("q9", "plain"), ("notes", "text")];
        let kinds: BTreeMap<String, String> =
            kinds.map(|(name, kind)| (name.to_owned(), kind.to_owned())).into_iter().collect();
        Dictionary::from([("patient".to_owned(), kinds.clone()), ("phq9".to_owned(), kinds)])
    }

    fn all() -> BTreeMap<String, Vec<Column>> {
        let columns = || {
            let texts = ["surname", "when_created", "notes"].map(|name| column(name, "varchar"));
            texts.into_iter().chain([column("q9", "int"), column("_pk", "int")]).collect()
        };
        ["patient", "phq9", "_security_users"].map(|table| (table.to_owned(), columns())).into()
    }

    #[test]
    fn the_most_special_rule_wins_and_nobody_is_named() {
        let rules = CopyRules::parse(
            "[\"*\"]\n\"*\" = \"keep\"\nwhen_created = \"year\"\n[phq9]\n\"q*\" = \"empty\"\nwhen_created = \"keep\"\n",
        )
        .unwrap();
        rules.check(&all(), &dictionary()).unwrap();
        let of = |table: &str, name: &str| {
            let column = all()[table].iter().position(|one| one.name == name).unwrap();
            let column = all().remove(table).unwrap().remove(column);
            rules.treatment(table, &column, kind_of(&dictionary(), table, &column))
        };
        assert_eq!(of("patient", "when_created"), Some(ColumnTreatment::Year));
        assert_eq!(of("phq9", "when_created"), Some(ColumnTreatment::Kept));
        assert_eq!(of("phq9", "q9"), Some(ColumnTreatment::Emptied));
        assert_eq!(of("phq9", "notes"), Some(ColumnTreatment::Kept));
        assert_eq!(of("patient", "surname"), None);
        assert_eq!(of("phq9", "_pk"), None);
    }

    #[test]
    fn what_means_nothing_or_too_much_is_refused() {
        for (text, why) in [
            ("[phq9]\nq10 = \"keep\"", "phq9.q10: there is no such column"),
            ("[\"x*\"]\nq9 = \"keep\"", "there is no such column"),
            ("[patient]\nsurname = \"keep\"", "identifies the patient"),
            ("[phq9]\nq9 = \"year\"", "it is not a date"),
            ("[phq9]\n_pk = \"empty\"", "not for numbers that join them"),
            ("[_security_users]\nnotes = \"keep\"", "rules are for what patients and tasks have"),
            ("[phq9]\nq9 = \"hash\"", "write \"keep\", \"year\""),
            ("phq9 = 1", "write the name of the table as [phq9]"),
            ("[phq9", "it is not TOML"),
        ] {
            let refused = CopyRules::parse(text).and_then(|rules| rules.check(&all(), &dictionary()));
            let told = refused.expect_err(text).to_string();
            assert!(told.contains(why), "{text}: {told}");
        }
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in [("*", "x"), ("q*", "q9"), ("*_comments", "a_comments"), ("a*b*c", "a1b2c"), ("x", "x")]
        {
            assert!(matches(pattern, name), "{pattern}");
        }
        for (pattern, name) in [("q*", "xq"), ("*_c", "a_cx"), ("a*b*c", "acb"), ("x", "xx")] {
            assert!(!matches(pattern, name), "{pattern}");
        }
    }
}
