//! stub
pub(crate) fn task(_: &[String], _: bool) -> Result<u8, String> {
    Err("not yet".into())
}
