// A wait that is skipped on purpose is a data race: ThreadSanitizer would find what the mutant is there to show.
#pragma once

namespace af::test {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kRacesAreErrors = true;
#else
inline constexpr bool kRacesAreErrors = false;
#endif

}  // namespace af::test
