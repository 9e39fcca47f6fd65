//! stub
use std::io::*; use std::path::Path; use crate::id::*; use super::*; use super::quarantine::Limits;
pub struct Series; pub struct Slice; pub struct Checked { pub tip: CommitId, pub prerequisites: Vec<CommitId>, pub commits: u64, pub objects: u64 }
impl Series { pub fn cut(_:Objects,_:&Path,_:Vec<CommitId>,_:u64)->std::result::Result<Self,StoreError>{unimplemented!()} pub fn len(&self)->usize{0} pub fn bytes_hint(&self)->Option<u64>{None} }
impl Iterator for Series { type Item=std::result::Result<Slice,StoreError>; fn next(&mut self)->Option<Self::Item>{None} }
impl Slice { pub fn prerequisites(&self)->&[CommitId]{&[]} pub fn tip(&self)->CommitId{unimplemented!()} pub fn revisions(&self)->u64{0} pub fn objects(&self)->u64{0} pub fn write_to(&self,_:&mut dyn Write)->std::result::Result<u64,StoreError>{unimplemented!()} }
pub fn receive(_:impl Read,_:&Objects,_:&Store,_:&Limits)->std::result::Result<Checked,StoreError>{unimplemented!()}
pub fn verify(_:impl Read,_:&Objects,_:&Store,_:&Limits)->std::result::Result<Checked,StoreError>{unimplemented!()}
