# Where dependencies come from: an installed package that is new enough, else a pinned release, fetched when CMake runs.
# CMAKE_DISABLE_FIND_PACKAGE_<package>=ON fetches although the package is installed.

include(FetchContent)
set(DEFT_EIGEN_MINIMUM 3.4)
set(DEFT_XSIMD_MINIMUM 8.1)

# deft_dependency(<package> TARGET <target> MINIMUM <version> URL <archive> SHA256 <hash> [HEADERS <directory>])
#
# Makes <target> exist. HEADERS: of the archive only this directory is used, as include path, and its own build files
# are not run (Eigen's would add hundreds of test targets).
function(deft_dependency package)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "TARGET;MINIMUM;URL;SHA256;HEADERS" "")
    if(TARGET ${arg_TARGET})
        return()
    endif()

    # Without a version: the packages' own version files reject every other major version, 5 where 3.4 is asked for.
    find_package(${package} CONFIG QUIET GLOBAL)
    if(${package}_FOUND)
        if(${package}_VERSION VERSION_LESS arg_MINIMUM)
            message(FATAL_ERROR "deft needs ${package} >= ${arg_MINIMUM}, found ${${package}_VERSION} in "
                                "${${package}_DIR}. Install a newer one, or set "
                                "CMAKE_DISABLE_FIND_PACKAGE_${package}=ON to fetch a pinned release.")
        endif()
        message(STATUS "${package} ${${package}_VERSION}: ${${package}_DIR}")
        return()
    endif()

    message(STATUS "${package}: no package found, using ${arg_URL}")
    FetchContent_Declare(${package} URL ${arg_URL} URL_HASH SHA256=${arg_SHA256} SOURCE_SUBDIR only-unpack)
    FetchContent_MakeAvailable(${package})
    FetchContent_GetProperties(${package} SOURCE_DIR source BINARY_DIR binary)
    if(DEFINED arg_HEADERS)
        add_library(${arg_TARGET} INTERFACE IMPORTED GLOBAL)
        target_include_directories(${arg_TARGET} INTERFACE ${source}/${arg_HEADERS})
    else()
        add_subdirectory(${source} ${binary} EXCLUDE_FROM_ALL SYSTEM)
    endif()
endfunction()

function(deft_find_eigen)
    deft_dependency(Eigen3 TARGET Eigen3::Eigen MINIMUM ${DEFT_EIGEN_MINIMUM} HEADERS .
        URL https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.bz2
        SHA256 b4c198460eba6f28d34894e3a5710998818515104d6e74e5cc331ce31e46e626)
endfunction()

function(deft_find_xsimd)
    deft_dependency(xsimd TARGET xsimd MINIMUM ${DEFT_XSIMD_MINIMUM} HEADERS include
        URL https://github.com/xtensor-stack/xsimd/archive/14.1.0.tar.gz
        SHA256 8da77b66214e73565f6111ba494322c853552b7b40cff69779b42e2100eed16f)
endfunction()

# BLAS::BLAS, and DEFT_CBLAS_INCLUDE_DIR with its cblas.h; only for DEFT_BLAS=ON. Debian keeps one header per library.
function(deft_find_blas)
    find_package(BLAS REQUIRED)
    list(GET BLAS_LIBRARIES 0 library)
    cmake_path(GET library PARENT_PATH directory)
    find_path(DEFT_CBLAS_INCLUDE_DIR cblas.h HINTS ${directory}/../include REQUIRED
              PATH_SUFFIXES openblas openblas-pthread ${CMAKE_LIBRARY_ARCHITECTURE}
              DOC "Directory of cblas.h for DEFT_BLAS")
    message(STATUS "BLAS: ${BLAS_LIBRARIES}, ${DEFT_CBLAS_INCLUDE_DIR}")
endfunction()

# Also makes include(Catch) work in the caller's directory: 2.13 and 3 keep that module in different places.
macro(deft_find_catch2)
    deft_dependency(Catch2 TARGET Catch2::Catch2WithMain MINIMUM 2.13
        URL https://github.com/catchorg/Catch2/archive/v3.7.1.tar.gz
        SHA256 c991b247a1a0d7bb9c39aa35faf0fe9e19764213f28ffba3109388e62ee0269c)
    list(APPEND CMAKE_MODULE_PATH ${Catch2_DIR} ${Catch2_SOURCE_DIR}/extras)
endmacro()

function(deft_find_benchmark)
    set(BENCHMARK_ENABLE_TESTING OFF)
    set(BENCHMARK_ENABLE_INSTALL OFF)
    deft_dependency(benchmark TARGET benchmark::benchmark MINIMUM 1.7
        URL https://github.com/google/benchmark/archive/refs/tags/v1.9.1.tar.gz
        SHA256 32131c08ee31eeff2c8968d7e874f3cb648034377dfc32a4c377fa8796d84981)
endfunction()

function(deft_find_json)
    deft_dependency(nlohmann_json TARGET nlohmann_json::nlohmann_json MINIMUM 3.10 HEADERS include
        URL https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
        SHA256 d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d)
endfunction()
