//! Changes to the text of `config.toml` that leave comments, order and spacing as the person made them; and where in
//! that text a key is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml_edit::{Array, Document, DocumentMut, InlineTable, Item, Table, TableLike, TomlError, Value};

use super::device::{Relay, RelayCertificate};
use super::error::ConfigError;
use super::name::Name;
use super::pause::Pause;
use super::period;
use super::rate::Limit;
use super::schedule::print_time;
use super::schema::{Config, Direction, FolderSettings, PeerSettings};

/// The configuration's text while it is changed.
#[derive(Debug)]
pub struct Editor {
    /// The comments of a text that has nothing else, which shall stay above what is added.
    head: String,
    document: DocumentMut,
    /// What the text says so far: only what differs from it is written.
    config: Config,
}

impl Editor {
    pub(super) fn new(text: &str, config: Config) -> Result<Self, TomlError> {
        let mut document: DocumentMut = text.parse()?;
        let mut head = String::new();
        if document.is_empty() {
            text.clone_into(&mut head);
            document.set_trailing("");
        }
        Ok(Self { head, document, config })
    }

    pub(super) fn finish(self) -> String {
        let Self { mut head, document, .. } = self;
        if !document.is_empty() && !head.is_empty() {
            head.push_str(if head.ends_with('\n') { "\n" } else { "\n\n" });
        }
        head + &document.to_string()
    }

    /// Adds a folder.
    pub fn add_folder(&mut self, name: &Name, path: &Path) -> Result<(), ConfigError> {
        let text = path.to_str().ok_or_else(|| ConfigError::NotText { path: path.to_owned() })?;
        put(self.entry("folder", name), "path", Some(text.into()));
        self.config.folders.insert(name.clone(), FolderSettings::new(path.to_owned()));
        Ok(())
    }

    /// Pauses or resumes a folder that there is.
    pub fn pause_folder(&mut self, name: &Name, pause: Pause) {
        if let Some(folder) = self.config.folders.get_mut(name) {
            folder.paused = pause;
            put(self.entry("folder", name), "paused", paused(pause));
        }
    }

    /// Adds a peer, or changes it to this. What has not changed stays as it is written; what is as it is by default is
    /// only written where the text has it.
    pub fn set_peer(&mut self, name: &Name, peer: &PeerSettings) {
        let old = self.config.peers.insert(name.clone(), peer.clone());
        let blank = PeerSettings::new(peer.address.clone());
        let is_new = old.is_none();
        let old = old.unwrap_or(blank);
        let table = self.entry("peer", name);
        if is_new || old.address != peer.address {
            put(table, "address", Some(peer.address.to_string().into()));
        }
        if old.addresses != peer.addresses {
            put(table, "addresses", list(peer.addresses.iter().map(ToString::to_string)));
        }
        if old.key != peer.key {
            put(table, "key", text(peer.key));
        }
        if is_new || old.folders != peer.folders {
            put(table, "folders", Some(peer.folders.iter().map(Name::as_str).collect::<Array>().into()));
        }
        if old.direction != peer.direction {
            put(table, "direction", Some(peer.direction.to_string().into()));
        }
        if old.directions != peer.directions {
            put_directions(table, &peer.directions);
        }
        if old.join != peer.join {
            put(table, "join", Some(peer.join.into()));
        }
        let (was, is) = (old.schedule, peer.schedule);
        if was.every != is.every {
            put(table, "every", text(is.every.map(period::print)));
        }
        if was.from != is.from {
            put(table, "from", text(is.from.map(print_time)));
        }
        if was.to != is.to {
            put(table, "to", text(is.to.map(print_time)));
        }
        if was.days != is.days {
            put(table, "days", list(is.days.iter().flat_map(|days| days.names())));
        }
        let (was, is) = (&old.rates, &peer.rates);
        if was.upload != is.upload {
            put(table, "upload", text(is.upload));
        }
        if was.download != is.download {
            put(table, "download", text(is.download));
        }
        if was.limits != is.limits {
            put(table, "limits", limits(&is.limits));
        }
        if old.paused != peer.paused {
            put(table, "paused", paused(peer.paused));
        }
    }

    /// Gives a peer another name.
    pub fn rename_peer(&mut self, old: &Name, new: &Name) {
        if let Some(peers) = self.document.get_mut("peer").and_then(Item::as_table_like_mut)
            && let Some(peer) = peers.remove(old.as_str())
        {
            peers.insert(new.as_str(), peer);
        }
        if let Some(peer) = self.config.peers.remove(old) {
            self.config.peers.insert(new.clone(), peer);
        }
    }

    /// Removes a peer, with the comment above it.
    pub fn remove_peer(&mut self, name: &Name) {
        if let Some(peers) = self.document.get_mut("peer").and_then(Item::as_table_like_mut) {
            peers.remove(name.as_str());
        }
        self.config.peers.remove(name);
    }

    /// Sets the relay of this device, and what its certificate must be.
    pub fn set_relay(&mut self, relay: &Relay, certificate: Option<&RelayCertificate>) {
        self.config.device.relay = Some(relay.clone());
        self.config.device.relay_certificate = certificate.cloned();
        let device = self.document.entry("device").or_insert_with(toml_edit::table);
        let device = device.as_table_like_mut().expect("the text was read as a configuration, where this is a table");
        put(device, "relay", Some(relay.to_string().into()));
        put(device, "relay_certificate", text(certificate));
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

/// Sets a key, keeping the comment behind it, or removes it.
fn put(table: &mut dyn TableLike, key: &str, value: Option<Value>) {
    let Some(mut value) = value else {
        table.remove(key);
        return;
    };
    let Some(item) = table.get_mut(key) else {
        table.insert(key, Item::Value(value));
        return;
    };
    if let Some(old) = item.as_value() {
        *value.decor_mut() = old.decor().clone();
    }
    *item = Item::Value(value);
}

fn text(value: Option<impl ToString>) -> Option<Value> {
    value.map(|value| value.to_string().into())
}

/// A list of texts; an empty one is none.
fn list<T: Into<Value>>(values: impl Iterator<Item = T>) -> Option<Value> {
    let list: Array = values.collect();
    (!list.is_empty()).then(|| list.into())
}

fn paused(pause: Pause) -> Option<Value> {
    match pause {
        Pause::No => None,
        Pause::Forever => Some(true.into()),
        Pause::Until(_) => Some(pause.to_string().into()),
    }
}

fn limits(limits: &[Limit]) -> Option<Value> {
    let table = |limit: &Limit| {
        let mut table = InlineTable::new();
        for (key, value) in limit.keys() {
            table.insert(key, value.into());
        }
        if let Some(days) = limit.window.days_if_some() {
            table.insert("days", days.names().collect::<Array>().into());
        }
        table
    };
    list(limits.iter().map(table))
}

/// Sets the directions of single folders, in the table that there is, or in one line.
fn put_directions(table: &mut dyn TableLike, directions: &BTreeMap<Name, Direction>) {
    if directions.is_empty() {
        table.remove("directions");
        return;
    }
    if table.get("directions").is_none() {
        table.insert("directions", Item::Value(InlineTable::new().into()));
    }
    let inner = table.get_mut("directions").and_then(Item::as_table_like_mut);
    let inner = inner.expect("the text was read as a configuration, where this is a table");
    let gone: Vec<_> = inner.iter().map(|(key, _)| key.to_owned()).collect();
    for key in gone.iter().filter(|key| !directions.keys().any(|name| name.as_str() == key.as_str())) {
        inner.remove(key);
    }
    for (folder, direction) in directions {
        let direction = direction.to_string();
        if inner.get(folder.as_str()).and_then(Item::as_str) != Some(direction.as_str()) {
            put(inner, folder.as_str(), Some(direction.into()));
        }
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

/// Where in the text the value of a key is; numbers count in lists.
pub(super) fn span_of(text: &str, keys: &[String]) -> Option<Range<usize>> {
    let document = Document::parse(text).ok()?;
    let mut item = document.as_item();
    for key in keys {
        item = match key.parse::<usize>() {
            Ok(at) if item.is_array() => item.get(at)?,
            _ => item.get(key.as_str())?,
        };
    }
    item.span()
}
