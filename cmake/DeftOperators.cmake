# Reads tests/operators.inc, the one list of operators, and stops if a file that an entry needs is missing.
#
# Sets DEFT_OPERATORS, DEFT_FAMILIES, DEFT_FILES ("<family>/<file>" of every entry, each once).

set(DEFT_OPERATORS "")
set(DEFT_FAMILIES "")
set(DEFT_FILES "")
set(missing "")

set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS tests/operators.inc)
file(STRINGS tests/operators.inc entries REGEX "^[^/]")
foreach(entry IN LISTS entries)
    if(NOT entry MATCHES "^DEFT_OPERATOR\\(([a-z0-9_]+), ([a-z0-9_]+), ([a-z0-9_]+)\\)$")
        message(FATAL_ERROR "tests/operators.inc: not of the form DEFT_OPERATOR(family, file, operator): ${entry}")
    endif()
    set(family ${CMAKE_MATCH_1})
    set(file ${CMAKE_MATCH_1}/${CMAKE_MATCH_2})
    set(operator ${CMAKE_MATCH_3})
    list(APPEND DEFT_FAMILIES ${family})
    list(APPEND DEFT_FILES ${file})
    list(APPEND DEFT_OPERATORS ${operator})
    foreach(needed include/deft/${file}.hpp include/deft/reference/${file}.hpp tests/${file}_test.cpp
                   tests/conformance/${file}.cpp benchmarks/${file}_bench.cpp tests/golden/${operator})
        if(NOT EXISTS ${PROJECT_SOURCE_DIR}/${needed})
            list(APPEND missing ${needed})
        endif()
    endforeach()
endforeach()
list(REMOVE_DUPLICATES DEFT_FAMILIES)
list(REMOVE_DUPLICATES DEFT_FILES)

if(missing)
    list(REMOVE_DUPLICATES missing)
    list(JOIN missing "\n  " missing)
    message(FATAL_ERROR "tests/operators.inc names operators that lack a file:\n  ${missing}")
endif()
