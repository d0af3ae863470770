# Run by the build: packs the files of the page and writes the table of them.
#   cmake -DOUT=DIR -DTABLE=FILE.cc "-DFILES=/page.js=SOURCE;…" -P embed.cmake
set(BODY "")
set(ROWS "")
set(COUNT 0)
foreach(PAIR IN LISTS FILES)
  string(FIND "${PAIR}" "=" AT)
  string(SUBSTRING "${PAIR}" 0 ${AT} NAME)
  math(EXPR AT "${AT} + 1")
  string(SUBSTRING "${PAIR}" ${AT} -1 SOURCE)
  set(PACKED ${OUT}/${COUNT}.gz)
  # Without name and time, so that the same files make the same binary.
  execute_process(COMMAND gzip -9 -n -c ${SOURCE} OUTPUT_FILE ${PACKED} COMMAND_ERROR_IS_FATAL ANY)
  file(SHA256 ${SOURCE} HASH)
  string(SUBSTRING ${HASH} 0 16 HASH)
  if(NAME MATCHES "\\.js$")
    set(TYPE "text/javascript; charset=utf-8")
  elseif(NAME MATCHES "\\.css$")
    set(TYPE "text/css; charset=utf-8")
  elseif(NAME MATCHES "\\.svg$")
    set(TYPE "image/svg+xml")
  elseif(NAME MATCHES "\\.txt$")
    set(TYPE "text/plain; charset=utf-8")
  else()
    set(TYPE "text/html; charset=utf-8")
  endif()
  string(APPEND BODY "asm(\n    \".pushsection .rodata\\n\"\n"
    "    \"creel_asset_${COUNT}: .incbin \\\"${PACKED}\\\"\\n\"\n"
    "    \"creel_asset_${COUNT}_end:\\n\"\n    \".popsection\\n\");\n"
    "extern \"C\" const char creel_asset_${COUNT}[];\n"
    "extern \"C\" const char creel_asset_${COUNT}_end[];\n")
  string(APPEND ROWS "      Of(\"${NAME}\", \"${TYPE}\", \"${HASH}\", creel_asset_${COUNT}, "
    "creel_asset_${COUNT}_end),\n")
  math(EXPR COUNT "${COUNT} + 1")
endforeach()
file(WRITE ${TABLE} "// Written by embed.cmake.
#include \"supervisor/web/asset_table.h\"

#include <array>

${BODY}
namespace creel::web {
namespace {

Asset Of(std::string_view path, std::string_view type, std::string_view version, const char* begin,
         const char* end) {
  return {path, type, version, std::string_view(begin, static_cast<size_t>(end - begin))};
}

}  // namespace

std::span<const Asset> AssetTable() {
  static const std::array<Asset, ${COUNT}> kTable{
${ROWS}  };
  return kTable;
}

}  // namespace creel::web
")
