#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/quantization/packed_weights.hpp>
#include <deft/reference/quantization/packed_weights.hpp>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

namespace deft::testing {

/// No floating point: the same in float and double.
struct pack_codes {
    template <class T>
    static void bind(call<T>& c) {
        const names<code_order> orders{{"linear", code_order::linear}, {"block32", code_order::block32}};
        const packing options{.bits = int(c.integer("bits")), .order = c.choice("order", orders)};
        const auto codes = c.input(rank<2, std::int64_t>, "in.codes");
        const index rows = codes.extent(0), columns = codes.extent(1);
        const index bytes = kernels::packed_row_bytes(columns, options.bits, options.order);
        const auto packed = c.output(rank<2, std::uint8_t>, "out.packed", {rows, bytes});
        c.forward("direct", [=](any_executor&) { deft::pack_codes<std::int64_t>(codes, packed, options); });
        // From bytes that came out of unpacking: equal only if both ways are right.
        const auto narrow = std::make_shared<std::vector<std::uint8_t>>(std::size_t(rows * columns));
        const view<std::uint8_t, 2> again(narrow->data(), {rows, columns});
        c.forward("to bytes and back", [=, keep = narrow](any_executor&) {
            deft::pack_codes<std::int64_t>(codes, packed, options);
            deft::unpack_codes(packed, again, options);
            for (index o = 0; o < rows; ++o)
                for (index k = 0; k < columns; ++k)
                    if (again(o, k) != codes(o, k))
                        throw std::logic_error("unpacking does not give the codes");
            deft::pack_codes(again, packed, options);
        });
        const bool block32 = options.order == code_order::block32;
        c.reference([=] { reference::pack_codes(codes, packed, options.bits, block32); });
    }

    static std::vector<test_case> cases() {
        random_values random(61);
        std::vector<test_case> cases;
        for (const char* order : {"linear", "block32"})
            for (const int bits : {2, 4, 8})
                for (const index columns : {0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 100, 259})
                    cases.push_back({"pack_codes",
                                     "generated",
                                     {{"bits", double(bits)}, {"order", order}},
                                     {{"in.codes", random.integers({columns % 4, columns}, 0, (1 << bits) - 1)}},
                                     {}});
        return cases;
    }
};
DEFT_ADAPTER(pack_codes)

} // namespace deft::testing
