# Writes OUT, a C file with the files of IN (list separated by |) as
#   const struct embedded_file NAME[] = {{"file.yaml", bytes, length}, …, {0}}.
# Run at build time: cmake -DIN=… -DOUT=… -DNAME=… -P embed.cmake
string(REPLACE "|" ";" IN "${IN}")
set(text "/* Made by src/embed.cmake. */\n#include \"base/embedded.h\"\n\n")
set(rows "")
set(n 0)
foreach(file IN LISTS IN)
  get_filename_component(base "${file}" NAME)
  file(READ "${file}" hex HEX)
  string(LENGTH "${hex}" length)
  math(EXPR length "${length} / 2")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND text "static const unsigned char file_${n}[] = { ${bytes}0 };\n")
  string(APPEND rows "    { \"${base}\", (const char *)file_${n}, ${length} },\n")
  math(EXPR n "${n} + 1")
endforeach()
string(APPEND text "\nconst struct embedded_file ${NAME}[] = {\n${rows}    { 0, 0, 0 },\n};\n")
file(WRITE "${OUT}" "${text}")
