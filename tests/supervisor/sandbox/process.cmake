creel_test(output_log_test SOURCES output_log_test.cc LINK creel::sandbox creel::grpc)
creel_test(process_table_test SOURCES process_table_test.cc LINK creel::sandbox creel::grpc)
