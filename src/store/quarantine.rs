//! stub
#[derive(Default)] pub struct Limits { pub pack_bytes: u64 }
