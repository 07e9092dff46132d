# One program, several instruction sets.
#
#   deft_add_isa_libraries(<name> MACRO <macro> SOURCES <file>... [LINK <library>...] [PRECOMPILE <header>])
#
# Compiles the sources once per instruction set of the target's CPU family:
#
#   x86-64, GNU or Clang:   sse2    -march=x86-64
#                           avx2    -march=haswell
#                           avx512  -march=skylake-avx512
#   anything else:          baseline, the compiler's own flags
#
# and makes of each a shared library <name>_<isa>. The sources see -D<macro>=<isa>; they define one function,
#
#   extern "C" ... <name>_<isa>(...)
#
# which is all that the library exports (on ELF platforms; elsewhere C++ symbols have hidden visibility). This is what
# makes the mix safe: inline functions of the standard library are weak symbols, and in one binary the linker would keep
# a single copy, perhaps the one with AVX-512 instructions, for all callers. Libraries in LINK that are static must be
# position-independent.
#
# Linking the interface library <name> links all of them and defines <macro>S as the list to expand, for example
#
#   X(sse2) X(avx2) X(avx512)
#
# DEFT_ISAS, a regular expression, restricts the instruction sets, for example to "avx2" or "sse2|avx2", or to none.
#
# The program chooses at run time, for example with __builtin_cpu_supports("avx2").

function(deft_add_isa_libraries name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "MACRO;PRECOMPILE" "SOURCES;LINK")

    set(isas baseline)
    set(flags_baseline "")
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
        set(isas sse2 avx2 avx512)
        set(flags_sse2 -march=x86-64)
        set(flags_avx2 -march=haswell)
        set(flags_avx512 -march=skylake-avx512)
    endif()

    if(DEFT_ISAS)
        list(FILTER isas INCLUDE REGEX "^(baseline|${DEFT_ISAS})$")
    endif()

    add_library(${name} INTERFACE)
    foreach(isa IN LISTS isas)
        set(library ${name}_${isa})
        add_library(${library} SHARED ${arg_SOURCES})
        target_compile_definitions(${library} PRIVATE ${arg_MACRO}=${isa})
        target_compile_options(${library} PRIVATE ${flags_${isa}})
        target_link_libraries(${library} PRIVATE ${arg_LINK})
        if(arg_PRECOMPILE)
            target_precompile_headers(${library} PRIVATE ${arg_PRECOMPILE})
        endif()
        set_target_properties(${library} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
        if(UNIX AND NOT APPLE)
            set(exports ${CMAKE_CURRENT_BINARY_DIR}/${library}.exports)
            file(CONFIGURE OUTPUT ${exports} CONTENT "{ global: ${library}; local: *; };\n")
            target_link_options(${library} PRIVATE LINKER:--version-script=${exports} LINKER:-Bsymbolic)
            set_property(TARGET ${library} APPEND PROPERTY LINK_DEPENDS ${exports})
        endif()
        target_link_libraries(${name} INTERFACE ${library})
    endforeach()

    list(TRANSFORM isas REPLACE "(.+)" "X(\\1)")
    list(JOIN isas " " isas)
    target_compile_definitions(${name} INTERFACE "${arg_MACRO}S=${isas}")
endfunction()
