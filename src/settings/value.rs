//! What the value of a setting can be: one trait, and the general types.

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use std::fmt;
use toml_edit::{Array, Value};

/// A type that a key of `provision.toml` can have.
pub(crate) trait Setting: Sized {
    /// What is allowed, as it reads after the word "allowed".
    fn allowed() -> String;

    /// The value that TOML gives, or what is wrong with it.
    fn read(value: &Value) -> Result<Self>;

    /// The value that plain text gives; only lists read it differently from a TOML string.
    fn from_text(text: &str) -> Result<Self> {
        Self::read(&text.into())
    }

    /// The value as TOML.
    fn write(&self) -> Value;
}

/// Reads what an environment variable or `--set` gives: TOML if the type takes it, else plain text.
pub(super) fn read_loosely<T: Setting>(text: &str) -> Result<T> {
    match text.parse() {
        Ok(Value::String(string)) => T::from_text(string.value()),
        Ok(value) => T::read(&value).or_else(|wrong| T::from_text(text).map_err(|_| wrong)),
        Err(_) => T::from_text(text),
    }
}

/// Says that the type of a value is not the wanted one, without showing the value.
pub(super) fn wrong_type(value: &Value, wanted: &str) -> Error {
    let given = match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::InlineTable(_) => "a table",
    };
    anyhow!("is {given}, not {wanted}")
}

/// The string in a value, free of anything that could end a line in the file it goes to.
pub(super) fn one_line(value: &Value) -> Result<&str> {
    let text = value.as_str().ok_or_else(|| wrong_type(value, "a string"))?;
    let ends_a_line = |c: &char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if let Some(control) = text.chars().find(ends_a_line) {
        bail!("contains the control character U+{:04X}; a value must fit on one line", u32::from(control));
    }
    Ok(text)
}

fn read_integer(value: &Value) -> Result<i64> {
    value.as_integer().ok_or_else(|| wrong_type(value, "a whole number"))
}

impl Setting for bool {
    fn allowed() -> String {
        "true or false".into()
    }

    fn read(value: &Value) -> Result<Self> {
        value.as_bool().ok_or_else(|| wrong_type(value, "true or false"))
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

/// A whole number from `MIN` to `MAX`; a `MAX` of `u32::MAX` means that there is no practical limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Whole<MIN, MAX> {
    /// The number.
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

impl<const MIN: u32, const MAX: u32> Setting for Whole<MIN, MAX> {
    fn allowed() -> String {
        match MAX {
            u32::MAX => format!("{MIN} or more"),
            _ if MAX == MIN + 1 => format!("{MIN} or {MAX}"),
            _ => format!("{MIN} to {MAX}"),
        }
    }

    fn read(value: &Value) -> Result<Self> {
        let number = read_integer(value)?;
        match u32::try_from(number) {
            Ok(inside) if (MIN..=MAX).contains(&inside) => Ok(Self(inside)),
            _ if number < i64::from(MIN) => bail!("{number} is too small"),
            _ => bail!("{number} is too large"),
        }
    }

    fn write(&self) -> Value {
        i64::from(self.0).into()
    }
}

/// A TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortNumber(pub(super) u16);

impl PortNumber {
    /// The port number, never 0.
    pub(crate) fn get(self) -> u16 {
        self.0
    }
}

impl Setting for PortNumber {
    fn allowed() -> String {
        "1 to 65535".into()
    }

    fn read(value: &Value) -> Result<Self> {
        let number = read_integer(value)?;
        match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(Self(port)),
            _ => bail!("{number} is not a port"),
        }
    }

    fn write(&self) -> Value {
        i64::from(self.0).into()
    }
}

/// A value, or `"auto"`: the program chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Auto<T> {
    /// The program chooses.
    Auto,
    /// The administrator chose this.
    Given(T),
}

impl<T> Auto<T> {
    /// What the administrator chose, if anything.
    pub(crate) fn given(&self) -> Option<&T> {
        match self {
            Self::Auto => None,
            Self::Given(value) => Some(value),
        }
    }
}

impl<T: Setting> Setting for Auto<T> {
    fn allowed() -> String {
        format!("\"auto\" or {}", T::allowed())
    }

    fn read(value: &Value) -> Result<Self> {
        match value.as_str() {
            Some("auto") => Ok(Self::Auto),
            _ => T::read(value).map(Self::Given),
        }
    }

    fn write(&self) -> Value {
        self.given().map_or_else(|| "auto".into(), T::write)
    }
}

/// A value, or 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ZeroOr<T>(pub(super) Option<T>);

impl<T: Copy> ZeroOr<T> {
    /// The value, unless it is switched off by 0.
    pub(crate) fn get(self) -> Option<T> {
        self.0
    }
}

impl<T: Setting> Setting for ZeroOr<T> {
    fn allowed() -> String {
        format!("0 (none) or {}", T::allowed())
    }

    fn read(value: &Value) -> Result<Self> {
        match value.as_integer() {
            Some(0) => Ok(Self(None)),
            _ => T::read(value).map(|value| Self(Some(value))),
        }
    }

    fn write(&self) -> Value {
        self.0.as_ref().map_or_else(|| 0.into(), T::write)
    }
}

/// TOML has no null, so the empty string means "none"; a later file can thus take a value back.
impl<T: Setting> Setting for Option<T> {
    fn allowed() -> String {
        T::allowed()
    }

    fn read(value: &Value) -> Result<Self> {
        match value.as_str() {
            Some("") => Ok(None),
            _ => T::read(value).map(Some),
        }
    }

    fn write(&self) -> Value {
        self.as_ref().map_or_else(|| "".into(), T::write)
    }
}

impl<T: Setting + PartialEq> Setting for Vec<T> {
    fn allowed() -> String {
        format!("a list, each entry {}", T::allowed())
    }

    fn read(value: &Value) -> Result<Self> {
        let array = value.as_array().ok_or_else(|| wrong_type(value, "a list"))?;
        let mut list = Vec::with_capacity(array.len());
        for (index, entry) in array.iter().enumerate() {
            let number = index + 1;
            let entry = T::read(entry).with_context(|| format!("entry {number}"))?;
            ensure!(!list.contains(&entry), "entry {number} repeats an earlier one");
            list.push(entry);
        }
        Ok(list)
    }

    fn from_text(text: &str) -> Result<Self> {
        let entries = text.split(',').map(str::trim);
        Self::read(&Array::from_iter(entries.filter(|entry| !entry.is_empty())).into())
    }

    fn write(&self) -> Value {
        Array::from_iter(self.iter().map(T::write)).into()
    }
}

/// A list; one entry may stand there without its brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OneOrMore<T>(pub(super) Vec<T>);

impl<T> OneOrMore<T> {
    /// All of them.
    pub(crate) fn all(&self) -> &[T] {
        &self.0
    }
}

impl<T: Setting + PartialEq> Setting for OneOrMore<T> {
    fn allowed() -> String {
        format!("{}, or a list of these", T::allowed())
    }

    fn read(value: &Value) -> Result<Self> {
        Ok(Self(match value {
            Value::Array(_) => Vec::read(value)?,
            _ => Option::<T>::read(value)?.into_iter().collect(),
        }))
    }

    fn from_text(text: &str) -> Result<Self> {
        Vec::from_text(text).map(Self)
    }

    fn write(&self) -> Value {
        self.0.write()
    }
}

/// Makes enums of fixed sets of words and lets them be settings.
macro_rules! choices {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident { $( $(#[doc = $variant_doc:literal])* $variant:ident = $word:literal ),+ $(,)? }
    )+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $( $(#[doc = $variant_doc])* $variant, )+ }

        impl $name {
            /// Every choice, in the order of the documentation.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word in `provision.toml`.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl $crate::settings::value::Setting for $name {
            fn allowed() -> String {
                $crate::settings::value::list_choices(Self::ALL.iter().map(|choice| choice.as_str()))
            }

            fn read(value: &toml_edit::Value) -> anyhow::Result<Self> {
                match $crate::settings::value::one_line(value)? {
                    $($word => Ok(Self::$variant),)+
                    word => anyhow::bail!("{word:?} is not one of the choices"),
                }
            }

            fn write(&self) -> toml_edit::Value {
                self.as_str().into()
            }
        }
    )+};
}
pub(super) use choices;

/// `"a", "b" or "c"`
pub(super) fn list_choices(words: impl Iterator<Item = &'static str>) -> String {
    let words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
    match words.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => words.concat(),
    }
}

/// Makes a newtype of a string that passes a check and lets it be a setting; `ensure!` and `bail!` refuse.
macro_rules! checked_text {
    ($(#[doc = $doc:literal])+ $name:ident, allowed $allowed:expr, |$text:ident| $check:block) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) struct $name(pub(super) String);

        impl $name {
            /// The text, which has passed the check.
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $crate::settings::value::Setting for $name {
            fn allowed() -> String {
                $allowed.into()
            }

            fn read(value: &toml_edit::Value) -> anyhow::Result<Self> {
                let $text = $crate::settings::value::one_line(value)?;
                $check
                Ok(Self($text.into()))
            }

            fn write(&self) -> toml_edit::Value {
                self.as_str().into()
            }
        }
    };
}
pub(super) use checked_text;

impl fmt::Display for PortNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
