//! What becomes of each column in a copy.

use super::rules::CopyRules;
use crate::drivers::sql::quote;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What the release declares: table, column, kind.
pub(crate) type Dictionary = BTreeMap<String, BTreeMap<String, String>>;

/// The kind of what says who a patient is.
pub(crate) const IDENTIFYING: &str = "identifying";
/// The session's variable with the key of the pseudonyms.
pub(crate) const KEY: &str = "@camcops_provision_key";
/// Pictures, handwriting, sounds.
const BLOBS: &str = "blobs";

/// The tables of the site itself that a copy needs, and the columns of them that it may keep as they are.
const OF_THE_SITE: [(&str, &[&str]); 9] = [
    ("_alembic_version", &["version_num"]),
    (
        "_idnum_definitions",
        &[
            "which_idnum",
            "description",
            "short_description",
            "hl7_id_type",
            "hl7_assigning_authority",
            "validation_method",
            "fhir_id_system",
        ],
    ),
    ("_idnum_index", &["idnum_pk", "indexed_at_utc", "patient_pk", "which_idnum"]),
    (
        "_security_devices",
        &["id", "registered_by_user_id", "when_registered_utc", "camcops_version", "last_upload_batch_utc"],
    ),
    ("_security_groups", &["id", "upload_policy", "finalize_policy", "ip_use_id"]),
    ("_security_ip_use", ALL),
    ("_security_users", &["id", "upload_group_id"]),
    ("_server_settings", &["id"]),
    ("_task_index", ALL),
];
/// Each of its columns.
const ALL: &[&str] = &[];

/// A column as the database has it.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Its type, without a size.
    pub(crate) data_type: String,
    /// Whether it may have nothing.
    pub(crate) nullable: bool,
}

impl Column {
    fn is_number(&self) -> bool {
        const NUMBERS: [&str; 9] =
            ["tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double", "bit"];
        NUMBERS.contains(&self.data_type.as_str())
    }

    /// Whether a year can be taken from it: a day, or one that is written as text.
    pub(crate) fn may_have_a_year(&self) -> bool {
        self.is_day() || ["char", "varchar"].contains(&self.data_type.as_str())
    }

    fn is_day(&self) -> bool {
        ["date", "datetime", "timestamp"].contains(&self.data_type.as_str())
    }

    fn is_moment(&self) -> bool {
        ["date", "datetime", "timestamp", "time", "year"].contains(&self.data_type.as_str())
    }
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnTreatment {
    Kept,
    /// The same for the same person or the same number, and nothing else.
    Pseudonym(Pseudonym),
    /// The first day of its year.
    Year,
    Emptied,
}

/// What a pseudonym stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pseudonym {
    /// A patient, as name.
    Person,
    /// A number of a patient.
    Number,
    /// A patient's identifier for tablets.
    Uuid,
    /// A user, a device or a group; those of CamCOPS itself are needed by their names.
    Row(&'static str),
}

impl ColumnTreatment {
    /// The value in a copy, as an expression over the original.
    pub(crate) fn value(self, column: &Column) -> String {
        let name = quote::quote_name(&column.name);
        let hashed = |what: &str| format!("SHA2(CONCAT({KEY}, {what}), 256)");
        match self {
            ColumnTreatment::Kept => name,
            ColumnTreatment::Year if column.is_day() => format!("MAKEDATE(YEAR({name}), 1)"),
            // As CamCOPS writes a moment as text.
            ColumnTreatment::Year => format!(
                "IF({name} REGEXP '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}', CONCAT(LEFT({name}, 4), '-01-01T00:00:00.000000+00:00'), {})",
                ColumnTreatment::Emptied.value(column)
            ),
            ColumnTreatment::Pseudonym(Pseudonym::Person) => {
                let person = "'person', LOWER(CONCAT_WS('|', forename, surname, dob))";
                format!("IF({name} IS NULL, NULL, CONCAT('P', UPPER(LEFT({}, 12))))", hashed(person))
            }
            ColumnTreatment::Pseudonym(Pseudonym::Number) => {
                // As many digits as any JavaScript and any spreadsheet takes.
                let number = format!("'number', which_idnum, '|', {name}");
                format!("CAST(CONV(LEFT({}, 13), 16, 10) AS SIGNED)", hashed(&number))
            }
            ColumnTreatment::Pseudonym(Pseudonym::Uuid) => {
                format!("LEFT({}, 32)", hashed(&format!("'uuid', {name}")))
            }
            ColumnTreatment::Pseudonym(Pseudonym::Row(what)) => {
                format!("IF({name} IN ('server', 'system'), {name}, CONCAT('{what}-', id))")
            }
            ColumnTreatment::Emptied if column.nullable => "NULL".to_owned(),
            ColumnTreatment::Emptied if column.is_number() => "0".to_owned(),
            ColumnTreatment::Emptied if column.is_moment() => "'1900-01-01'".to_owned(),
            ColumnTreatment::Emptied => "''".to_owned(),
        }
    }

    fn for_column(table: &str, column: &Column, kind: Option<&str>) -> ColumnTreatment {
        match (table, column.name.as_str()) {
            ("patient", "forename" | "surname") => ColumnTreatment::Pseudonym(Pseudonym::Person),
            ("patient", "dob") => ColumnTreatment::Year,
            ("patient", "uuid") => ColumnTreatment::Pseudonym(Pseudonym::Uuid),
            ("patient_idnum", "idnum_value") => ColumnTreatment::Pseudonym(Pseudonym::Number),
            (_, name) => match kind {
                Some("plain" | "code") => ColumnTreatment::Kept,
                Some("exempt") if !name.starts_with("clinician_") => ColumnTreatment::Kept,
                _ => ColumnTreatment::Emptied,
            },
        }
    }

    fn of_the_site(table: &str, column: &Column, kept: &[&str]) -> ColumnTreatment {
        match (table, column.name.as_str()) {
            ("_idnum_index", "idnum_value") => ColumnTreatment::Pseudonym(Pseudonym::Number),
            ("_security_devices", "name") => ColumnTreatment::Pseudonym(Pseudonym::Row("device")),
            ("_security_users", "username") => ColumnTreatment::Pseudonym(Pseudonym::Row("user")),
            ("_security_groups", "name") => ColumnTreatment::Pseudonym(Pseudonym::Row("group")),
            (_, name) if kept.is_empty() || kept.contains(&name) => ColumnTreatment::Kept,
            _ => ColumnTreatment::Emptied,
        }
    }
}

/// Whether it is known what a table is for.
pub(crate) fn is_known(table: &str, dictionary: &Dictionary) -> bool {
    dictionary.contains_key(table) || OF_THE_SITE.iter().any(|(name, _)| *name == table)
}

/// What becomes of its columns; nothing where the table stays empty.
pub(crate) fn plan_columns<'a>(
    table: &str,
    columns: &'a [Column],
    dictionary: &Dictionary,
    rules: &CopyRules,
) -> Option<Vec<(&'a Column, ColumnTreatment)>> {
    if let Some((_, kept)) = OF_THE_SITE.iter().find(|(name, _)| *name == table) {
        let ways = columns.iter();
        return Some(ways.map(|column| (column, ColumnTreatment::of_the_site(table, column, kept))).collect());
    }
    if table.starts_with('_') || table == BLOBS {
        return None;
    }
    let declared = dictionary.get(table)?;
    let ways = columns.iter().map(|column| {
        let kind = declared.get(&column.name).map(String::as_str);
        let by_rule = rules.treatment(table, column, kind.unwrap_or("text"));
        (column, by_rule.unwrap_or_else(|| ColumnTreatment::for_column(table, column, kind)))
    });
    Some(ways.collect())
}

/// Columns that are kept, and would not be without the site's own rules.
pub(crate) fn kept_by_rules(table: &str, plan: &[(&Column, ColumnTreatment)], dictionary: &Dictionary) -> Vec<String> {
    let is_of_the_site = OF_THE_SITE.iter().any(|(name, _)| *name == table);
    let kind = |column: &Column| dictionary.get(table)?.get(&column.name).map(String::as_str);
    plan.iter()
        .filter(|(column, way)| {
            let declared = ColumnTreatment::for_column(table, column, kind(column));
            !is_of_the_site && *way == ColumnTreatment::Kept && declared != ColumnTreatment::Kept
        })
        .map(|(column, _)| format!("{table}.{}", column.name))
        .collect()
}

/// When it is copied.
pub(crate) fn copy_rank(table: &str) -> u8 {
    match table {
        "_task_index" | "_idnum_index" => 0,
        "patient_idnum" => 2,
        "patient" => 3,
        "_security_groups" | "_security_ip_use" => 5,
        _ if table.starts_with('_') => 4,
        _ => 1,
    }
}

/// What became of a table.
#[derive(Debug, Serialize)]
pub(crate) struct Copied {
    table: String,
    /// How many rows it has.
    pub(crate) rows: u64,
    kept: Vec<String>,
    pseudonyms: Vec<String>,
    year_only: Vec<String>,
    emptied: Vec<String>,
}

impl Copied {
    pub(crate) fn new(table: &str, rows: u64, plan: &[(&Column, ColumnTreatment)]) -> Copied {
        let of = |is: fn(ColumnTreatment) -> bool| {
            let those = plan.iter().filter(|(_, way)| is(*way));
            those.map(|(column, _)| column.name.clone()).collect()
        };
        Copied {
            table: table.to_owned(),
            rows,
            kept: of(|way| way == ColumnTreatment::Kept),
            pseudonyms: of(|way| matches!(way, ColumnTreatment::Pseudonym(_))),
            year_only: of(|way| way == ColumnTreatment::Year),
            emptied: of(|way| way == ColumnTreatment::Emptied),
        }
    }
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} rows", self.table, self.rows)?;
        for (what, names) in
            [("pseudonyms", &self.pseudonyms), ("year only", &self.year_only), ("emptied", &self.emptied)]
        {
            if !names.is_empty() {
                write!(f, "; {what}: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: &str) -> Column {
        Column { name: name.into(), data_type: data_type.into(), nullable: true }
    }

    #[test]
    fn what_is_not_declared_is_emptied() {
        let kinds = [
            ("a", "plain"),
            ("b", "code"),
            ("c", "exempt"),
            ("clinician_name", "exempt"),
            ("d", "text"),
            ("e", "identifying"),
            ("f", "blob"),
        ];
        let declared = kinds.map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        let dictionary = Dictionary::from([("phq9".to_owned(), declared.into())]);
        let columns: Vec<Column> =
            ["a", "b", "c", "clinician_name", "d", "e", "f", "new"].map(|name| column(name, "varchar")).into();
        let plan = plan_columns("phq9", &columns, &dictionary, &CopyRules::default()).unwrap();
        let kept: Vec<&str> = plan
            .iter()
            .filter(|(_, way)| *way == ColumnTreatment::Kept)
            .map(|(column, _)| column.name.as_str())
            .collect();
        assert_eq!(kept, ["a", "b", "c"]);
        assert!(plan.iter().all(|(_, way)| [ColumnTreatment::Kept, ColumnTreatment::Emptied].contains(way)));
    }

    #[test]
    fn tables_of_users_and_logs_do_not_come_along() {
        let columns = [column("details", "text"), column("hashedpw", "varchar")];
        let dictionary =
            Dictionary::from([("_security_audit".to_owned(), BTreeMap::new()), ("blobs".to_owned(), BTreeMap::new())]);
        for table in ["_security_audit", "blobs", "unknown"] {
            assert!(plan_columns(table, &columns, &dictionary, &CopyRules::default()).is_none(), "{table}");
        }
        assert!(!is_known("unknown", &dictionary));
        let users = plan_columns("_security_users", &columns, &dictionary, &CopyRules::default()).unwrap();
        assert!(users.iter().all(|(_, way)| *way == ColumnTreatment::Emptied));
    }

    #[test]
    fn a_column_that_needs_a_value_gets_an_empty_one() {
        for (data_type, value) in [("varchar", "''"), ("int", "0"), ("datetime", "'1900-01-01'")] {
            let column = Column { nullable: false, ..column("x", data_type) };
            assert_eq!(ColumnTreatment::Emptied.value(&column), value);
        }
        assert_eq!(ColumnTreatment::Emptied.value(&column("x", "text")), "NULL");
    }
}
