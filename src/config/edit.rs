//! Changes to the text of `config.toml` that leave comments, order and spacing as the person made them; and where in
//! that text a key is.

use std::ops::Range;
use std::path::Path;

use toml_edit::{Array, Document, DocumentMut, Item, Table, TableLike, TomlError, Value};

use super::error::ConfigError;
use super::name::Name;
use super::schema::{Direction, PeerSettings};

/// The configuration's text while it is changed.
#[derive(Debug)]
pub struct Editor {
    /// The comments of a text that has nothing else, which shall stay above what is added.
    head: String,
    document: DocumentMut,
}

impl Editor {
    pub(super) fn new(text: &str) -> Result<Self, TomlError> {
        let mut document: DocumentMut = text.parse()?;
        let mut head = String::new();
        if document.is_empty() {
            text.clone_into(&mut head);
            document.set_trailing("");
        }
        Ok(Self { head, document })
    }

    pub(super) fn finish(self) -> String {
        let Self { mut head, document } = self;
        if !document.is_empty() && !head.is_empty() {
            head.push_str(if head.ends_with('\n') { "\n" } else { "\n\n" });
        }
        head + &document.to_string()
    }

    /// Adds a folder.
    pub fn add_folder(&mut self, name: &Name, path: &Path) -> Result<(), ConfigError> {
        let text = path.to_str().ok_or_else(|| ConfigError::NotText { path: path.to_owned() })?;
        put(self.entry("folder", name), "path", text.into());
        Ok(())
    }

    /// Adds a peer, or changes it to this. What is as it is by default is only written where the text has it.
    pub fn set_peer(&mut self, name: &Name, peer: &PeerSettings) {
        let table = self.entry("peer", name);
        put(table, "address", peer.address.to_string().into());
        put(table, "folders", peer.folders.iter().map(Name::as_str).collect::<Array>().into());
        if peer.direction != Direction::default() || table.contains_key("direction") {
            put(table, "direction", peer.direction.to_string().into());
        }
        if peer.join || table.contains_key("join") {
            put(table, "join", peer.join.into());
        }
    }

    /// Gives a peer another name.
    pub fn rename_peer(&mut self, old: &Name, new: &Name) {
        if let Some(peers) = self.document.get_mut("peer").and_then(Item::as_table_like_mut)
            && let Some(peer) = peers.remove(old.as_str())
        {
            peers.insert(new.as_str(), peer);
        }
    }

    /// Removes a peer, with the comment above it.
    pub fn remove_peer(&mut self, name: &Name) {
        if let Some(peers) = self.document.get_mut("peer").and_then(Item::as_table_like_mut) {
            peers.remove(name.as_str());
        }
    }

    /// The table `[family.name]`, made where it is missing.
    fn entry(&mut self, family: &str, name: &Name) -> &mut dyn TableLike {
        let implicit = || {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        };
        self.document
            .entry(family)
            .or_insert_with(implicit)
            .as_table_like_mut()
            .expect("the text was read as a configuration, where families are tables")
            .entry(name.as_str())
            .or_insert_with(toml_edit::table)
            .as_table_like_mut()
            .expect("the text was read as a configuration, where entries are tables")
    }
}

/// Sets a key, keeping the comment behind it; a value that is the same already is left as it is written.
fn put(table: &mut dyn TableLike, key: &str, mut value: Value) {
    if let Some(old) = table.get(key).and_then(Item::as_value) {
        if same(old, &value) {
            return;
        }
        *value.decor_mut() = old.decor().clone();
    }
    table.insert(key, Item::Value(value));
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.value() == b.value(),
        (Value::Boolean(a), Value::Boolean(b)) => a.value() == b.value(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => false,
    }
}

/// The innermost key, with those around it, that a place in the text belongs to.
pub(super) fn key_at(text: &str, place: &Range<usize>) -> Option<String> {
    fn search<'a>(table: &'a dyn TableLike, place: &Range<usize>, keys: &mut Vec<&'a str>) {
        let holds = |span: Range<usize>| span.start <= place.start && place.start < span.end.max(span.start + 1);
        for (name, item) in table.iter() {
            let key = table.key(name).and_then(toml_edit::Key::span);
            let in_key = key.is_some_and(holds);
            let in_value = item.span().is_some_and(holds);
            if in_key {
                keys.push(name);
                return;
            }
            // A table may lie in parts around others, or have no place of its own: look inside in any case.
            let before = keys.len();
            keys.push(name);
            if let Some(inner) = item.as_table_like() {
                search(inner, place, keys);
            }
            if keys.len() > before + 1 || in_value {
                return;
            }
            keys.truncate(before);
        }
    }
    let document = Document::parse(text).ok()?;
    let mut keys = Vec::new();
    search(document.as_table(), place, &mut keys);
    (!keys.is_empty()).then(|| keys.join("."))
}

/// Where in the text a peer names its folder number `at`.
pub(super) fn folder_span(text: &str, peer: &Name, at: usize) -> Option<Range<usize>> {
    let document = Document::parse(text).ok()?;
    let peers = document.get("peer")?.as_table_like()?;
    peers.get(peer.as_str())?.get("folders")?.get(at)?.span()
}
