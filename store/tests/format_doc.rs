//! `docs/FORMAT.md` and `store/src/format.rs` say the same: every layout and
//! every constant, in both directions.
//!
//! Layouts are compared with the compiled tables. Constants are read from the
//! source text, so that a new one cannot be left out of the comparison.

use std::collections::BTreeMap;
use std::fmt::Debug;

use asl_store::format;

const DOC: &str = include_str!("../../docs/FORMAT.md");
const SOURCE: &str = include_str!("../src/format.rs");

/// A row of a layout: field, offset, length.
type Row = (String, usize, usize);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number(u128),
    Text(String),
}

/// What one side says.
#[derive(Debug, Default)]
struct Tables {
    layouts: BTreeMap<String, Vec<Row>>,
    constants: BTreeMap<String, Value>,
}

impl Tables {
    /// Reads the page. Every table whose head names these columns counts.
    fn of_doc(doc: &str) -> Result<Self, String> {
        let mut tables = Self::default();
        let mut heading = None;
        let mut columns: Option<Vec<String>> = None;
        for line in doc.lines() {
            if line.starts_with('#') {
                heading = backticked(line).map(str::to_owned);
            }
            let Some(inner) = line.strip_prefix('|') else {
                columns = None;
                continue;
            };
            let inner = inner.strip_suffix('|').unwrap_or(inner);
            let cells: Vec<String> = inner
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect();
            let Some(head) = &columns else {
                columns = Some(cells);
                continue;
            };
            if cells.iter().all(|cell| cell.starts_with("--")) {
                continue;
            }
            let bad = || format!("cannot read the row {line}");
            match head.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["offset", "length", "field", "meaning"] => {
                    let [offset, length, field, _] = &cells[..] else {
                        return Err(bad());
                    };
                    let name = heading.clone().ok_or_else(bad)?;
                    let row = (
                        field.clone(),
                        offset.parse().map_err(|_| bad())?,
                        length.parse().map_err(|_| bad())?,
                    );
                    tables.layouts.entry(name).or_default().push(row);
                }
                ["constant", "value", "meaning"] => {
                    let [name, value, _] = &cells[..] else {
                        return Err(bad());
                    };
                    let value = backticked(value).and_then(evaluate).ok_or_else(bad)?;
                    if tables.constants.insert(name.clone(), value).is_some() {
                        return Err(format!("{name} stands there twice"));
                    }
                }
                _ => {}
            }
        }
        Ok(tables)
    }

    /// Reads the code: layouts as compiled, constants as written.
    fn of_code(source: &str) -> Result<Self, String> {
        let mut tables = Self::default();
        for (name, fields) in format::LAYOUTS {
            let rows = fields
                .iter()
                .map(|field| (field.name.to_lowercase(), field.offset, field.len));
            tables.layouts.insert((*name).to_owned(), rows.collect());
        }
        // Constants inside modules and macros are indented; those are fields.
        for declaration in source.split("\npub const ").skip(1) {
            if declaration.starts_with("fn ") {
                continue;
            }
            let bad = || format!("cannot read the constant {declaration:.60}");
            let (name, rest) = declaration.split_once(':').ok_or_else(bad)?;
            if name == "LAYOUTS" {
                continue;
            }
            // The type may hold a semicolon, as in `[u8; 8]`.
            let (_, value) = rest.split_once(" =").ok_or_else(bad)?;
            let (value, _) = value.split_once(';').ok_or_else(bad)?;
            let value = evaluate(value.trim()).ok_or_else(bad)?;
            tables.constants.insert(name.to_owned(), value);
        }
        Ok(tables)
    }
}

/// The first text between backticks.
fn backticked(text: &str) -> Option<&str> {
    text.split('`').nth(1)
}

/// The value of a literal, or of a literal shifted by another.
fn evaluate(text: &str) -> Option<Value> {
    let quoted = text.trim_start_matches(['*', 'b']);
    if let Some(inner) = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        return Some(Value::Text(inner.to_owned()));
    }
    let number = |text: &str| {
        let digits = text.trim().replace('_', "");
        match digits.strip_prefix("0x") {
            Some(hex) => u128::from_str_radix(hex, 16).ok(),
            None => digits.parse().ok(),
        }
    };
    let value = match text.split_once("<<") {
        Some((value, shift)) => number(value)? << number(shift)?,
        None => number(text)?,
    };
    Some(Value::Number(value))
}

/// Everything that one side has and the other has not, or has otherwise.
fn differences<T: PartialEq + Debug>(
    what: &str,
    doc: &BTreeMap<String, T>,
    code: &BTreeMap<String, T>,
) -> Vec<String> {
    let names = doc
        .keys()
        .chain(code.keys().filter(|name| !doc.contains_key(*name)));
    names
        .filter(|name| doc.get(*name) != code.get(*name))
        .map(|name| {
            format!(
                "{what} {name}: the page says {:?}, the code {:?}",
                doc.get(name),
                code.get(name)
            )
        })
        .collect()
}

fn drift(doc: &str, source: &str) -> Vec<String> {
    let (doc, code) = match (Tables::of_doc(doc), Tables::of_code(source)) {
        (Ok(doc), Ok(code)) => (doc, code),
        (doc, code) => return [doc.err(), code.err()].into_iter().flatten().collect(),
    };
    let mut found = differences("layout", &doc.layouts, &code.layouts);
    found.extend(differences("constant", &doc.constants, &code.constants));
    found
}

#[test]
fn the_page_and_the_code_agree() {
    let found = drift(DOC, SOURCE);
    assert!(found.is_empty(), "{}", found.join("\n"));
    let code = Tables::of_code(SOURCE).expect("read above");
    assert!(code.layouts.len() > 20 && code.constants.len() > 60);
}

/// Every layout module of the code is in `LAYOUTS`, so none escapes the comparison.
#[test]
fn every_layout_is_listed() {
    let declared = SOURCE.split("\nlayout! {").skip(1).map(|body| {
        let body = body.lines().find(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with("///")
        });
        body.and_then(|line| line.split_whitespace().next())
            .expect("a layout has a name")
    });
    let listed: Vec<_> = format::LAYOUTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(declared.collect::<Vec<_>>(), listed);
}

/// The comparison can fail: each row of each table, left out or with another
/// number, is noticed.
#[test]
fn any_drift_of_the_page_is_noticed() {
    let lines: Vec<&str> = DOC.lines().collect();
    let mut rows = 0;
    for (at, line) in lines.iter().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let number = |cell: usize| {
            cells
                .get(cell)
                .is_some_and(|cell| cell.parse::<u32>().is_ok())
        };
        let field = cells.len() == 6 && number(1) && number(2);
        let constant = cells.len() == 5
            && cells[2].starts_with('`')
            && cells[1].starts_with(|c: char| c.is_ascii_uppercase());
        if !field && !constant {
            continue;
        }
        rows += 1;
        let with = |line: Option<String>| {
            let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            match line {
                Some(line) => changed[at] = line,
                None => drop(changed.remove(at)),
            }
            changed.join("\n")
        };
        let replaced = |cell: usize, text: String| {
            let mut cells: Vec<String> = cells.iter().map(|cell| (*cell).to_owned()).collect();
            cells[cell] = text;
            with(Some(cells.join("|")))
        };
        let mut changes = vec![with(None)];
        if field {
            changes.push(replaced(1, format!("{}1", cells[1])));
            changes.push(replaced(2, format!("{}1", cells[2])));
            changes.push(replaced(3, format!("{}x", cells[3])));
        } else {
            changes.push(replaced(1, format!("{}X", cells[1])));
            changes.push(replaced(2, "`77777`".to_owned()));
        }
        for changed in changes {
            assert!(!drift(&changed, SOURCE).is_empty(), "unnoticed: {line}");
        }
    }
    assert!(rows > 200, "{rows} rows");
}

/// So is a constant that is added, changed or removed in the code.
#[test]
fn any_drift_of_the_code_is_noticed() {
    let added = format!("{SOURCE}\npub const NEW_THING: u8 = 1;\n");
    assert!(!drift(DOC, &added).is_empty());
    let doc = Tables::of_doc(DOC).expect("read above");
    for name in doc.constants.keys() {
        let declared = format!("\npub const {name}:");
        assert_eq!(SOURCE.matches(&declared).count(), 1, "{name}");
        let renamed = SOURCE.replace(&declared, &format!("\npub const OTHER_{name}:"));
        assert!(!drift(DOC, &renamed).is_empty(), "{name}");
    }
}
