//! stub
pub(crate) fn demo(_: &[String]) -> Result<u8, String> {
    Err("not yet".into())
}
pub(crate) fn soak() -> Result<u8, String> {
    Err("not yet".into())
}
pub(crate) fn bench(_: Option<&str>) -> Result<u8, String> {
    Err("not yet".into())
}
