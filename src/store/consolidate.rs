//! stub
use super::*; use std::path::Path;
pub enum Measure { Small, Everything } pub struct Gathered { pub packs_before: u64, pub packs_after: u64, pub bytes_before: u64, pub bytes_after: u64 }
pub fn is_due(_:&Path)->Result<bool,StoreError>{Ok(false)}
pub fn gather(_:&Path,_:&Objects,_:Measure,_:&dyn crate::monitor::Monitor)->Result<Gathered,StoreError>{unimplemented!()}
