# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# boot_disk FILE SIZE TEXT: a disk from which a BIOS boots (sourced, here and in the
# lab's dom0): it reads sector 2, whose text goes to the serial port, and writes it
# to sector 3; then the keyboard controller resets the machine.
boot_disk()
{
	{
		# 00 xor ax,ax; mov ds,ax; mov es,ax; mov bx,7e00
		printf '\x31\xc0\x8e\xd8\x8e\xc0\xbb\x00\x7e'
		# 09 mov ax,0201; mov cx,2; mov dx,80; int 13; jc 2f
		printf '\xb8\x01\x02\xb9\x02\x00\xba\x80\x00\xcd\x13\x72\x19'
		# 16 mov si,7e00; mov dx,3f8
		printf '\xbe\x00\x7e\xba\xf8\x03'
		# 1c lodsb; test al,al; jz 24; out dx,al; jmp 1c
		printf '\xac\x84\xc0\x74\x03\xee\xeb\xf8'
		# 24 mov ax,0301; mov cx,3; mov dx,80; int 13
		printf '\xb8\x01\x03\xb9\x03\x00\xba\x80\x00\xcd\x13'
		# 2f mov al,fe; out 64,al; 33: hlt; jmp 33
		printf '\xb0\xfe\xe6\x64\xf4\xeb\xfd'
	} > "$1"
	truncate -s 510 "$1"
	printf '\x55\xaa%s\r\n' "$3" >> "$1"
	truncate -s "$2" "$1"
}
