/* What Rust's standard library imports and wine before 8.13 lacks. */
__declspec(dllimport) unsigned char __stdcall SystemFunction036(void *, unsigned long);
__declspec(dllexport) int __stdcall ProcessPrng(unsigned char *to, unsigned long long count) {
    while (count > 0) {
        unsigned long part = count > 0x40000000 ? 0x40000000 : (unsigned long)count;
        if (!SystemFunction036(to, part)) return 0;
        to += part;
        count -= part;
    }
    return 1;
}
