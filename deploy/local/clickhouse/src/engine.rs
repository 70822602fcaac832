//! The C interface of `libchdb.so`, as far as this server needs it.
//!
//! Boundary: every `unsafe` of this crate is here. One [`Connection`] runs one statement at a time,
//! which `&mut self` enforces; several connections of one process share the engine and its path.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use libloading::Library;

type RawConnection = *mut c_void;
type RawResult = *mut c_void;
type Connect = unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut RawConnection;
type Close = unsafe extern "C" fn(*mut RawConnection);
type Query = unsafe extern "C" fn(
    RawConnection,
    *const c_char,
    usize,
    *const c_char,
    usize,
    *const *const c_char,
    *const usize,
    *const *const c_char,
    *const usize,
    usize,
) -> RawResult;
type Destroy = unsafe extern "C" fn(RawResult);
type Buffer = unsafe extern "C" fn(RawResult) -> *const c_char;
type Length = unsafe extern "C" fn(RawResult) -> usize;
type Count = unsafe extern "C" fn(RawResult) -> u64;
type SetSignalHandlers = unsafe extern "C" fn(c_int);
type Shutdown = unsafe extern "C" fn() -> c_int;

/// The loaded library and where its tables are kept.
pub struct Engine {
    connect: Connect,
    close: Close,
    query: Query,
    destroy: Destroy,
    buffer: Buffer,
    length: Length,
    error: Buffer,
    rows_read: Count,
    bytes_read: Count,
    rows_written: Count,
    bytes_written: Count,
    shutdown: Shutdown,
    arguments: Vec<CString>,
    // Last: the functions above point into it.
    _library: Library,
}

impl Engine {
    /// Loads the library; the engine itself starts with the first connection.
    pub fn load(library: &Path, data: &Path) -> Result<Arc<Self>, String> {
        let failed = |error: libloading::Error| format!("{}: {error}", library.display());
        let arguments = ["clickhouse".to_owned(), format!("--path={}", data.display())]
            .into_iter()
            .map(|argument| CString::new(argument).map_err(|_| "a NUL byte in the path".to_owned()))
            .collect::<Result<Vec<_>, _>>()?;
        // SAFETY: the library's initialisers only set up its allocator; the signatures are those of
        // chdb.h at the pinned version.
        unsafe {
            let loaded = Library::new(library).map_err(failed)?;
            // Our own handlers of SIGTERM and SIGINT must stay.
            let set_signal_handlers = *loaded
                .get::<SetSignalHandlers>(b"chdb_set_signal_handlers_enabled\0")
                .map_err(failed)?;
            set_signal_handlers(0);
            Ok(Arc::new(Self {
                connect: *loaded.get(b"chdb_connect\0").map_err(failed)?,
                close: *loaded.get(b"chdb_close_conn\0").map_err(failed)?,
                query: *loaded.get(b"chdb_query_with_params_n\0").map_err(failed)?,
                destroy: *loaded.get(b"chdb_destroy_query_result\0").map_err(failed)?,
                buffer: *loaded.get(b"chdb_result_buffer\0").map_err(failed)?,
                length: *loaded.get(b"chdb_result_length\0").map_err(failed)?,
                error: *loaded.get(b"chdb_result_error\0").map_err(failed)?,
                rows_read: *loaded.get(b"chdb_result_storage_rows_read\0").map_err(failed)?,
                bytes_read: *loaded.get(b"chdb_result_storage_bytes_read\0").map_err(failed)?,
                rows_written: *loaded.get(b"chdb_result_rows_written\0").map_err(failed)?,
                bytes_written: *loaded.get(b"chdb_result_bytes_written\0").map_err(failed)?,
                shutdown: *loaded.get(b"chdb_shutdown\0").map_err(failed)?,
                arguments,
                _library: loaded,
            }))
        }
    }

    /// Opens one more connection; the first one starts the engine.
    pub fn connect(self: &Arc<Self>) -> Result<Connection, String> {
        let mut arguments: Vec<*mut c_char> =
            self.arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(arguments.len()).map_err(|error| error.to_string())?;
        // SAFETY: the strings outlive the call, which does not write to them.
        let handle = unsafe { (self.connect)(count, arguments.as_mut_ptr()) };
        if handle.is_null() {
            return Err("the engine does not start on this path".to_owned());
        }
        Ok(Connection { engine: Arc::clone(self), handle })
    }

    /// Stops the engine's threads. Every connection and result must be gone.
    pub fn shutdown(&self) -> bool {
        // SAFETY: no pointers; refuses by itself while a connection is open.
        unsafe { (self.shutdown)() == 0 }
    }
}

/// One session of the engine.
pub struct Connection {
    engine: Arc<Engine>,
    handle: *mut RawConnection,
}

// SAFETY: the library allows use from any thread, one statement at a time; `&mut self` sees to that.
unsafe impl Send for Connection {}

impl Connection {
    /// Runs a statement and returns its whole result, or the engine's error text.
    pub fn query(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &[(String, String)],
    ) -> Result<Answer, String> {
        let names: Vec<_> = parameters.iter().map(|(name, _)| name.as_ptr().cast()).collect();
        let name_lengths: Vec<_> = parameters.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<_> = parameters.iter().map(|(_, value)| value.as_ptr().cast()).collect();
        let value_lengths: Vec<_> = parameters.iter().map(|(_, value)| value.len()).collect();
        // SAFETY: pointers and lengths belong together and outlive the call.
        let raw = unsafe {
            (self.engine.query)(
                *self.handle,
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                parameters.len(),
            )
        };
        if raw.is_null() {
            return Err("Code: 1001. DB::Exception: the engine gave no result".to_owned());
        }
        let answer = Answer { engine: Arc::clone(&self.engine), raw };
        // SAFETY: the text belongs to the result, which lives.
        let error = unsafe { (self.engine.error)(raw) };
        if error.is_null() {
            return Ok(answer);
        }
        // SAFETY: a NUL-terminated text of the living result.
        Err(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: ours, and closed once.
        unsafe { (self.engine.close)(self.handle) };
    }
}

/// What a statement returned; its bytes stay in the engine's memory.
pub struct Answer {
    engine: Arc<Engine>,
    raw: RawResult,
}

// SAFETY: a finished result is plain memory.
unsafe impl Send for Answer {}

impl Answer {
    /// `X-ClickHouse-Summary`: what was read and written.
    pub fn summary(&self) -> String {
        let engine = &self.engine;
        // SAFETY: the result lives.
        let [rows_read, bytes_read, rows_written, bytes_written] = unsafe {
            [engine.rows_read, engine.bytes_read, engine.rows_written, engine.bytes_written]
                .map(|count| count(self.raw))
        };
        format!(
            r#"{{"read_rows":"{rows_read}","read_bytes":"{bytes_read}","written_rows":"{rows_written}","written_bytes":"{bytes_written}"}}"#
        )
    }
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: buffer and length of the living result; nothing writes to it any more.
        unsafe {
            let buffer = (self.engine.buffer)(self.raw);
            let length = (self.engine.length)(self.raw);
            if buffer.is_null() || length == 0 {
                return &[];
            }
            std::slice::from_raw_parts(ptr::from_ref(&*buffer).cast(), length)
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once.
        unsafe { (self.engine.destroy)(self.raw) };
    }
}
